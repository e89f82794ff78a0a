//! Which kinds of events the live members send, and what is left out while one of them is stopped.
//!
//! What would arrive while its kind is stopped is left out and never made up for. Nobody plays what
//! was not shown to them: with an impression its play is left out, whenever it would come. That is
//! decided when an event arrives and not when it is drawn, so stopping changes nothing else.

use super::Arrival;
use marquee_model::Kind;
use std::collections::HashMap;

/// No play comes later after its impression, not even its second delivery.
const PLAY_WITHIN_MS: i64 = 65_000;

/// How often what can no longer matter is looked for.
const FORGET_EVERY_MS: i64 = 1_000;

/// What is stopped, and was lately.
#[derive(Debug, Default)]
pub(super) struct Sources {
    silences: Vec<Silence>,
    /// For each request with a play on its way: when the impression arrives that it follows.
    shown_ms: HashMap<[u8; 16], i64>,
    forgotten_ms: i64,
}

/// The time in which a kind was stopped.
#[derive(Debug)]
struct Silence {
    kind: Kind,
    from_ms: i64,
    /// `i64::MAX` while it lasts.
    until_ms: i64,
}

impl Sources {
    /// Stops or starts a kind, from what arrives at that moment on.
    pub(super) fn stop(&mut self, kind: Kind, stopped: bool, now_ms: i64) {
        let lasts = |silence: &&mut Silence| silence.kind == kind && silence.until_ms == i64::MAX;
        match (self.silences.iter_mut().find(lasts), stopped) {
            (None, true) => {
                self.silences.push(Silence { kind, from_ms: now_ms, until_ms: i64::MAX });
            }
            (Some(silence), false) => silence.until_ms = now_ms,
            (Some(_), true) | (None, false) => {}
        }
    }

    /// A request plays what an impression shows that arrives then.
    pub(super) fn play_follows(&mut self, request_id: [u8; 16], shown_ms: i64) {
        self.shown_ms.insert(request_id, shown_ms);
    }

    /// Whether an event is sent when it arrives.
    pub(super) fn sends(&self, arrival: &Arrival) -> bool {
        let event = &arrival.event;
        let shown_ms = match event.kind {
            Kind::Impression => None,
            Kind::Play => self.shown_ms.get(&event.request_id).copied(),
        };
        !self.is_silent(event.kind, arrival.arrival_ms)
            && shown_ms.is_none_or(|shown_ms| !self.is_silent(Kind::Impression, shown_ms))
    }

    fn is_silent(&self, kind: Kind, arrival_ms: i64) -> bool {
        let of = |silence: &Silence| {
            silence.kind == kind && (silence.from_ms..silence.until_ms).contains(&arrival_ms)
        };
        self.silences.iter().any(of)
    }

    /// Everything that arrives until `now_ms` has been judged.
    pub(super) fn forget(&mut self, now_ms: i64) {
        if now_ms < self.forgotten_ms.saturating_add(FORGET_EVERY_MS) {
            return;
        }
        self.forgotten_ms = now_ms;
        let from_ms = now_ms - PLAY_WITHIN_MS;
        self.shown_ms.retain(|_, shown_ms| *shown_ms > from_ms);
        self.silences.retain(|silence| silence.until_ms > from_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::super::GeneratedEvent;
    use super::*;

    fn arrival(kind: Kind, request: u8, arrival_ms: i64) -> Arrival {
        let event = GeneratedEvent {
            kind,
            request_id: [request; 16],
            event_time_ms: arrival_ms - 500,
            video: 0,
            country: 0,
            device: 0,
            row: 0,
            position: 0,
            duration_s: 60,
        };
        Arrival { arrival_ms, event }
    }

    #[test]
    fn a_kind_is_silent_from_one_moment_to_the_other() {
        let mut sources = Sources::default();
        sources.stop(Kind::Impression, false, 50);
        sources.stop(Kind::Impression, true, 100);
        sources.stop(Kind::Impression, true, 150);
        let sends = |sources: &Sources, kind, at_ms| sources.sends(&arrival(kind, 1, at_ms));
        assert!(sends(&sources, Kind::Impression, 99));
        assert!(!sends(&sources, Kind::Impression, 100));
        assert!(!sends(&sources, Kind::Impression, 1_000_000));
        assert!(sends(&sources, Kind::Play, 100));
        sources.stop(Kind::Impression, false, 200);
        assert!(!sends(&sources, Kind::Impression, 199));
        assert!(sends(&sources, Kind::Impression, 200));
    }

    #[test]
    fn a_play_is_left_out_with_the_impression_that_it_follows() {
        let mut sources = Sources::default();
        sources.stop(Kind::Impression, true, 1_000);
        sources.stop(Kind::Impression, false, 2_000);
        sources.play_follows([1; 16], 999);
        sources.play_follows([2; 16], 1_500);
        sources.play_follows([3; 16], 2_000);
        sources.forget(60_000);
        let sent = [1, 2, 3].map(|request| sources.sends(&arrival(Kind::Play, request, 60_000)));
        assert_eq!(sent, [true, false, true]);
    }

    #[test]
    fn what_can_no_longer_matter_is_forgotten() {
        let mut sources = Sources::default();
        for minute in 0..100 {
            let now_ms = minute * 60_000;
            sources.play_follows([minute as u8; 16], now_ms);
            sources.stop(Kind::Impression, true, now_ms);
            sources.stop(Kind::Impression, false, now_ms + 1_000);
            sources.forget(now_ms + 2_000);
        }
        assert!(sources.shown_ms.len() <= 2 && sources.silences.len() <= 2, "{sources:?}");
        sources.stop(Kind::Play, true, 6_000_000);
        sources.forget(60_000_000);
        assert_eq!((sources.shown_ms.len(), sources.silences.len()), (0, 1));
    }
}
