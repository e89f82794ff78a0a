//! All requests -> one stream in arrival order, in memory that does not grow with their number.
//!
//! Requests start in the order of their numbers, and no event arrives before its request starts. So
//! once a request has been drawn, everything that arrives before its start is complete and can
//! leave. What waits is what is under way at one moment: a few thousand events in a million, and
//! the late ones, which wait for hours.

use super::request::Requests;
use super::{Arrival, GenerateError, Options};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The events of both kinds in arrival order; at the same millisecond, in the order of requests.
///
/// Fails at once where the options make no sense; reading on cannot fail.
pub fn arrivals(options: &Options) -> Result<Arrivals, GenerateError> {
    let requests = Requests::new(options)?;
    Ok(Arrivals {
        requests,
        next_request: 0,
        complete_before_ms: i64::MIN,
        drawn: Vec::new(),
        under_way: UnderWay::default(),
    })
}

/// An iterator over [`Arrival`]s; made by [`arrivals`].
pub struct Arrivals {
    requests: Requests,
    next_request: u64,
    /// The start of the last request that was drawn: none that follows brings anything earlier.
    complete_before_ms: i64,
    /// Empty between two requests; kept for its memory.
    drawn: Vec<Arrival>,
    under_way: UnderWay,
}

impl Iterator for Arrivals {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        loop {
            if let Some(arrival) = self.under_way.pop_before(self.complete_before_ms) {
                return Some(arrival);
            }
            if self.next_request < self.requests.count() {
                self.draw_next();
            } else if self.complete_before_ms < i64::MAX {
                self.complete_before_ms = i64::MAX;
            } else {
                return None;
            }
        }
    }
}

impl Arrivals {
    fn draw_next(&mut self) {
        self.complete_before_ms = self.requests.draw(self.next_request, &mut self.drawn);
        self.next_request += 1;
        self.drawn.drain(..).for_each(|arrival| self.under_way.push(arrival));
    }

    /// How many events are held at the moment.
    #[cfg(test)]
    pub(super) fn under_way(&self) -> usize {
        self.under_way.heap.len()
    }
}

/// Events that have been sent and have not arrived, the next to arrive first; at the same
/// millisecond, the first to be pushed first.
#[derive(Default)]
pub(super) struct UnderWay {
    heap: BinaryHeap<Reverse<Sent>>,
    pushed: u64,
}

impl UnderWay {
    pub(super) fn push(&mut self, arrival: Arrival) {
        self.heap.push(Reverse(Sent { arrival, number: self.pushed }));
        self.pushed += 1;
    }

    /// The next one, if it arrives before a time.
    pub(super) fn pop_before(&mut self, limit_ms: i64) -> Option<Arrival> {
        let Reverse(first) = self.heap.peek()?;
        if first.arrival.arrival_ms >= limit_ms {
            return None;
        }
        self.heap.pop().map(|Reverse(sent)| sent.arrival)
    }
}

struct Sent {
    arrival: Arrival,
    number: u64,
}

impl Sent {
    fn place(&self) -> (i64, u64) {
        (self.arrival.arrival_ms, self.number)
    }
}

impl Ord for Sent {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place().cmp(&other.place())
    }
}

impl PartialOrd for Sent {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Sent {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Sent {}
