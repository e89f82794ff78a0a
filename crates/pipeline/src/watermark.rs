//! How far event time has come in one lane.
//!
//! The watermark only decides when state may go; results never wait for it. It is computed from
//! records and heartbeats alone (invariant PURE), so a replay computes the same.

use crate::settings::{Idle, Settings};
use marquee_model::RequestKey;

/// The watermark of one lane: the minimum over its topics.
#[derive(Debug)]
pub struct Watermark {
    lateness_ms: i64,
    idle: Idle,
    topics: Vec<TopicClock>,
    /// The largest value reached so far: a watermark never moves back.
    reached_ms: Option<i64>,
}

impl Watermark {
    /// For a number of topics, none of which has been read.
    pub fn new(settings: &Settings, topics: usize) -> Self {
        let clock = TopicClock::new(settings.watermark_support.max(1));
        Watermark {
            lateness_ms: settings.lateness_ms,
            idle: settings.idle,
            topics: vec![clock; topics],
            reached_ms: None,
        }
    }

    /// An event was read from a topic. `seen_ms` is `min(event time, record time)`.
    #[inline]
    pub fn observe(&mut self, topic: usize, request: RequestKey, seen_ms: i64) {
        self.topics[topic].observe(request, seen_ms);
    }

    /// A heartbeat: at `now_ms` a topic had nothing more to read. The runtime sends none for a
    /// topic that is paused, not assigned, rebuilding or failing: those hold the watermark.
    pub fn nothing_to_read(&mut self, topic: usize, now_ms: i64) {
        let clock = &mut self.topics[topic];
        let since = *clock.idle_since_ms.get_or_insert(now_ms);
        if let Idle::After(grace_ms) = self.idle
            && now_ms - since >= grace_ms
        {
            let follows = now_ms - self.lateness_ms - grace_ms;
            clock.idle_floor_ms = Some(clock.idle_floor_ms.map_or(follows, |f| f.max(follows)));
        }
    }

    /// The watermark, or `None` while some topic has shown too little to say.
    pub fn advance(&mut self) -> Option<i64> {
        self.topics.iter_mut().for_each(TopicClock::settle);
        let of_topic = |clock: &TopicClock| {
            let read = clock.supported_ms().map(|ms| ms - self.lateness_ms);
            read.max(clock.idle_floor_ms)
        };
        let mut lowest: Option<i64> = None;
        for clock in &self.topics {
            let Some(ms) = of_topic(clock) else {
                return self.reached_ms;
            };
            lowest = Some(lowest.map_or(ms, |l| l.min(ms)));
        }
        self.reached_ms = self.reached_ms.max(lowest);
        self.reached_ms
    }

    /// The watermark as last computed.
    pub fn reached_ms(&self) -> Option<i64> {
        self.reached_ms
    }

    /// The largest `min(event time, record time)` read from a topic: on catch-up the topic that
    /// is ahead waits for the other.
    pub fn progress_ms(&self, topic: usize) -> Option<i64> {
        self.topics[topic].newest_ms
    }
}

/// What a snapshot holds of it.
impl Watermark {
    /// The largest value reached.
    pub(crate) fn saved_reached_ms(&self) -> Option<i64> {
        self.reached_ms
    }

    /// For each topic the largest times and their requests, ascending, and the least that its
    /// watermark is because it was idle. Since when it is idle is not kept: while nobody looks, it
    /// holds the watermark.
    pub(crate) fn saved_topics(
        &self,
    ) -> impl Iterator<Item = (Vec<(i64, RequestKey)>, Option<i64>)> {
        let settled = |clock: &TopicClock| {
            let mut clock = clock.clone();
            clock.settle();
            clock.largest
        };
        self.topics.iter().map(move |clock| (settled(clock), clock.idle_floor_ms))
    }

    /// Takes what [`Watermark::saved_reached_ms`] gave.
    pub(crate) fn load_reached_ms(&mut self, reached_ms: Option<i64>) {
        self.reached_ms = reached_ms;
    }

    /// Takes what [`Watermark::saved_topics`] gave of one topic; the support may be another one.
    pub(crate) fn load_topic(
        &mut self,
        topic: usize,
        largest: impl Iterator<Item = (i64, RequestKey)>,
        idle_floor_ms: Option<i64>,
    ) {
        for (seen_ms, request) in largest {
            self.topics[topic].observe(request, seen_ms);
        }
        self.topics[topic].idle_floor_ms = idle_floor_ms;
    }
}

/// How many observations wait at most to be looked at together.
const WAITING: usize = 256;

/// The largest times seen in one topic, each of another request.
#[derive(Clone, Debug)]
struct TopicClock {
    support: usize,
    /// At most `support` pairs, ascending by time; one pair a request, its largest time.
    largest: Vec<(i64, RequestKey)>,
    /// What was observed and not looked at yet. The order does not matter, and most of it does not
    /// count any more once the latest of it was looked at.
    waiting: Vec<(i64, RequestKey)>,
    /// The largest time of all.
    newest_ms: Option<i64>,
    /// When the topic was first found empty since its last record.
    idle_since_ms: Option<i64>,
    /// The least that the watermark of this topic is, after it has been idle for long.
    idle_floor_ms: Option<i64>,
}

impl TopicClock {
    fn new(support: usize) -> Self {
        TopicClock {
            support,
            largest: Vec::with_capacity(support + 1),
            waiting: Vec::new(),
            newest_ms: None,
            idle_since_ms: None,
            idle_floor_ms: None,
        }
    }

    #[inline]
    fn observe(&mut self, request: RequestKey, seen_ms: i64) {
        self.idle_since_ms = None;
        self.newest_ms = self.newest_ms.max(Some(seen_ms));
        self.waiting.push((seen_ms, request));
        if self.waiting.len() == WAITING {
            self.settle();
        }
    }

    fn settle(&mut self) {
        let mut waiting = std::mem::take(&mut self.waiting);
        while let Some((seen_ms, request)) = waiting.pop() {
            let is_full = self.largest.len() == self.support;
            if !(is_full && seen_ms <= self.largest[0].0) {
                self.insert(request, seen_ms);
            }
        }
        self.waiting = waiting;
    }

    /// Mostly the event is of the request that came last and later than all: looked at first.
    fn insert(&mut self, request: RequestKey, seen_ms: i64) {
        let mut place = match self.largest.iter().rposition(|(_, r)| *r == request) {
            Some(place) if self.largest[place].0 >= seen_ms => return,
            Some(place) => place,
            None if self.largest.len() == self.support => 0,
            None => {
                let place = self.largest.partition_point(|(ms, _)| *ms <= seen_ms);
                return self.largest.insert(place, (seen_ms, request));
            }
        };
        while let Some(next) = self.largest.get(place + 1).filter(|(ms, _)| *ms <= seen_ms) {
            self.largest[place] = *next;
            place += 1;
        }
        self.largest[place] = (seen_ms, request);
    }

    /// The `support`-th largest time of distinct requests.
    fn supported_ms(&self) -> Option<i64> {
        (self.largest.len() == self.support).then(|| self.largest[0].0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watermark(support: usize, topics: usize) -> Watermark {
        let settings = Settings {
            watermark_support: support,
            lateness_ms: 10,
            idle: Idle::After(100),
            ..Default::default()
        };
        Watermark::new(&settings, topics)
    }

    #[test]
    fn fewer_clocks_than_the_support_cannot_move_it() {
        let mut w = watermark(3, 1);
        for (request, ms) in [(1, 1000), (2, 1010), (3, 1020)] {
            w.observe(0, RequestKey(request), ms);
        }
        assert_eq!(w.advance(), Some(990));
        for ms in [1_000_000, 2_000_000, 3_000_000] {
            w.observe(0, RequestKey(8), ms);
            w.observe(0, RequestKey(9), ms);
        }
        assert_eq!(w.advance(), Some(1010), "two wild requests leave the third largest at 1020");
    }

    #[test]
    fn the_slower_topic_decides_and_nothing_moves_back() {
        let mut w = watermark(1, 2);
        w.observe(0, RequestKey(1), 500);
        assert_eq!(w.advance(), None);
        w.observe(1, RequestKey(1), 100);
        assert_eq!(w.advance(), Some(90));
        w.observe(1, RequestKey(2), 50);
        assert_eq!(w.advance(), Some(90));
    }

    #[test]
    fn an_idle_topic_holds_for_the_grace_and_then_follows_the_clock() {
        let mut w = watermark(1, 2);
        w.observe(0, RequestKey(1), 5_000);
        w.observe(1, RequestKey(1), 1_000);
        w.nothing_to_read(1, 2_000);
        w.nothing_to_read(1, 2_099);
        assert_eq!(w.advance(), Some(990));
        w.nothing_to_read(1, 2_100);
        assert_eq!(w.advance(), Some(1_990));
        w.observe(1, RequestKey(2), 1_500);
        w.nothing_to_read(1, 9_000);
        assert_eq!(w.advance(), Some(1_990), "a record starts the grace anew");
    }

    proptest::proptest! {
        #[test]
        fn it_is_the_kth_largest_of_distinct_requests(
            support in 1_usize..5,
            // More than wait at a time, too.
            seen in proptest::collection::vec((0_u128..6, 0_i64..50), 0..3 * WAITING),
        ) {
            let mut w = watermark(support, 1);
            let mut best = std::collections::BTreeMap::new();
            for (request, ms) in &seen {
                w.observe(0, RequestKey(*request), *ms);
                let entry = best.entry(*request).or_insert(*ms);
                *entry = (*entry).max(*ms);
            }
            let newest = seen.iter().map(|(_, ms)| *ms).max();
            proptest::prop_assert_eq!(w.progress_ms(0), newest);
            let mut sorted: Vec<i64> = best.into_values().collect();
            sorted.sort_by(|a, b| b.cmp(a));
            proptest::prop_assert_eq!(w.advance(), sorted.get(support - 1).map(|ms| ms - 10));
        }
    }
}
