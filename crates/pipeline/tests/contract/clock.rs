//! The watermark as semantics.md says it, from everything that one life of a lane has read.

use crate::history::{Record, Setup};
use std::collections::BTreeMap;

/// What a life has read so far.
#[derive(Clone, Default)]
pub(crate) struct Clock {
    /// By topic and request, the largest `min(event time, record time)`.
    seen_ms: [BTreeMap<String, i64>; 2],
    idle_since_ms: [Option<i64>; 2],
    /// Where the clock has taken an idle topic.
    followed_ms: [Option<i64>; 2],
}

impl Clock {
    /// A record was read, and is no dead letter.
    pub(crate) fn observe(&mut self, record: &Record) {
        let topic = record.topic();
        let seen_ms = record.time_ms.min(record.record_ms());
        let of_request = self.seen_ms[topic].entry(record.request_id()).or_insert(seen_ms);
        *of_request = seen_ms.max(*of_request);
        self.idle_since_ms[topic] = None;
    }

    /// A process has died: while nobody looks, a topic is not idle.
    pub(crate) fn interrupted(&mut self) {
        self.idle_since_ms = [None; 2];
    }

    /// "A topic that has nothing to read holds W for `idle_grace` and then follows
    /// `now - lateness - idle_grace`."
    pub(crate) fn nothing_to_read(&mut self, topic: usize, now_ms: i64, setup: &Setup) {
        let since_ms = *self.idle_since_ms[topic].get_or_insert(now_ms);
        let Some(grace_ms) = setup.idle_after_ms else { return };
        if now_ms - since_ms >= grace_ms {
            let ms = now_ms - setup.lateness_ms - grace_ms;
            self.followed_ms[topic] = self.followed_ms[topic].max(Some(ms));
        }
    }

    /// "The minimum over the lane's topics of (`min(event time, record time)` read so far, largest
    /// but for the k - 1 largest of distinct requests, - `lateness`)."
    pub(crate) fn watermark_ms(&self, setup: &Setup) -> Option<i64> {
        let of_topic = |topic: usize| {
            let mut largest: Vec<_> = self.seen_ms[topic].values().collect();
            largest.sort_unstable_by(|a, b| b.cmp(a));
            let read = largest.get(setup.support - 1).map(|ms| *ms - setup.lateness_ms);
            read.max(self.followed_ms[topic])
        };
        Some(of_topic(0)?.min(of_topic(1)?))
    }
}

/// "The group of epoch e goes, whole, when `W > end(e) + within + early`."
pub(crate) fn first_open(watermark_ms: i64, setup: &Setup) -> i64 {
    let end_ms = |epoch: i64| (epoch + 1) * setup.epochs_ms[0];
    let is_gone = |epoch| watermark_ms > end_ms(epoch) + setup.within_ms + setup.early_ms;
    (0..).find(|epoch| !is_gone(*epoch)).unwrap()
}
