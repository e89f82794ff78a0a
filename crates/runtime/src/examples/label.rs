//! Labels: which impressions of a request were played, and how soon. Pure.
//!
//! It is the join of docs/semantics.md, said once more for rows instead of sets: an impression and a
//! play match when they share the request, the video (unless `match = "request"`), and
//! `-early <= play - impression <= within`. What a request was shown of a video in one epoch is one
//! example, as it is one member of a cell.

use marquee_pipeline::settings::{Match, Settings};

/// An event as it was kept for its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kept<'e> {
    pub(super) request: &'e str,
    /// Impressions come first.
    pub(super) is_play: bool,
    /// The video under which it counts.
    pub(super) video: &'e str,
    pub(super) time_ms: i64,
    /// Of an impression: its attributes, in the bytes of a spool.
    pub(super) attributes: &'e [u8],
}

/// What a request was shown of one video in one epoch, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Labelled<'e> {
    /// The first sighting.
    pub(super) first: Kept<'e>,
    /// Number of the epoch.
    pub(super) epoch: i64,
    /// Milliseconds from the last sighting before the first play that matches (or the first one after
    /// it) to that play.
    pub(super) to_play_ms: Option<i64>,
}

/// Calls `each` with every example of some requests, of which all events are there. The order of
/// events means nothing; that of examples is by request and video.
pub(super) fn label<'e, E>(
    events: &mut [Kept<'e>],
    settings: &Settings,
    each: &mut dyn FnMut(Labelled<'e>) -> Result<(), E>,
) -> Result<(), E> {
    events.sort_unstable();
    for request in events.chunk_by(|a, b| a.request == b.request) {
        let (shown, played) = request.split_at(request.partition_point(|event| !event.is_play));
        let mut all_played: Vec<i64> = Vec::new();
        if settings.match_ == Match::Request {
            all_played.extend(played.iter().map(|play| play.time_ms));
            all_played.sort_unstable();
        }
        let is_one = |a: &Kept<'_>, b: &Kept<'_>| {
            a.video == b.video && settings.epoch_of(a.time_ms) == settings.epoch_of(b.time_ms)
        };
        for sightings in shown.chunk_by(is_one) {
            let first = sightings[0];
            let to_play_ms = match settings.match_ {
                Match::Request => first_play(sightings, all_played.iter().copied(), settings),
                Match::RequestAndVideo => {
                    let from = played.partition_point(|play| play.video < first.video);
                    let of_video = played[from..].iter().take_while(|p| p.video == first.video);
                    first_play(sightings, of_video.map(|play| play.time_ms), settings)
                }
            };
            each(Labelled { first, epoch: settings.epoch_of(first.time_ms), to_play_ms })?;
        }
    }
    Ok(())
}

/// Sightings and plays both stand by time.
fn first_play(
    sightings: &[Kept<'_>],
    plays_ms: impl Iterator<Item = i64>,
    settings: &Settings,
) -> Option<i64> {
    let Settings { within_ms, early_ms, .. } = *settings;
    let (first_ms, last_ms) = (sightings[0].time_ms, sightings[sightings.len() - 1].time_ms);
    for play_ms in plays_ms {
        if play_ms < first_ms - early_ms {
            continue;
        }
        if play_ms > last_ms + within_ms {
            return None;
        }
        let after = sightings.partition_point(|shown| shown.time_ms <= play_ms);
        let before = after.checked_sub(1).map(|at| sightings[at].time_ms);
        let after = sightings.get(after).map(|shown| shown.time_ms);
        let is_match = |shown_ms: &i64| (-early_ms..=within_ms).contains(&(play_ms - shown_ms));
        if let Some(shown_ms) = before.filter(is_match).or(after.filter(is_match)) {
            return Some(play_ms - shown_ms);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use marquee_pipeline::settings::{EpochOfPlay, Idle, Impressions};
    use proptest::prelude::*;
    use std::convert::Infallible;

    const MINUTE_MS: i64 = 60_000;

    fn settings(match_: Match) -> Settings {
        Settings {
            match_,
            impressions: Impressions::All,
            epoch_of_play: EpochOfPlay::Impression,
            within_ms: 60 * MINUTE_MS,
            early_ms: MINUTE_MS,
            lateness_ms: 0,
            idle: Idle::Hold,
            watermark_support: 1,
            max_facts: 100,
            epochs_ms: vec![30 * MINUTE_MS],
            groupings: 1,
        }
    }

    fn kept<'e>(is_play: bool, request: &'e str, video: &'e str, minute: i64) -> Kept<'e> {
        let time_ms = minute * MINUTE_MS;
        Kept { request, is_play, video, time_ms, attributes: &[] }
    }

    /// Examples as `request video first-minute minutes-to-play`.
    #[track_caller]
    fn check(match_: Match, events: &[(bool, &str, &str, i64)], expected: &[&str]) {
        let mut kept: Vec<_> = events.iter().map(|(p, r, v, m)| kept(*p, r, v, *m)).collect();
        let mut found = Vec::new();
        let each = &mut |row: Labelled<'_>| {
            let Kept { request, video, time_ms, .. } = row.first;
            let to_play = row.to_play_ms.map_or("-".into(), |ms| (ms / MINUTE_MS).to_string());
            found.push(format!("{request} {video} {} {to_play}", time_ms / MINUTE_MS));
            Ok::<_, Infallible>(())
        };
        let Ok(()) = label(&mut kept, &settings(match_), each);
        assert_eq!(found, expected);
    }

    #[test]
    fn the_cases_of_the_semantics() {
        use Match::{Request, RequestAndVideo};
        // Seen twice in one epoch, played after each: one example, the first play after the first.
        let twice = [(false, "r", "a", 1), (true, "r", "a", 20), (false, "r", "a", 29)];
        check(RequestAndVideo, &twice, &["r a 1 19"]);
        let again = [(false, "r", "a", 1), (false, "r", "a", 29), (true, "r", "a", 70)];
        check(RequestAndVideo, &again, &["r a 1 41"]);
        // Two epochs are two examples; the first sighting is too old by then.
        let epochs = [(false, "r", "a", 1), (false, "r", "a", 50), (true, "r", "a", 100)];
        check(RequestAndVideo, &epochs, &["r a 1 -", "r a 50 50"]);
        // Clocks differ: a play up to a minute before its impression.
        check(RequestAndVideo, &[(false, "r", "a", 5), (true, "r", "a", 4)], &["r a 5 -1"]);
        check(RequestAndVideo, &[(false, "r", "a", 5), (true, "r", "a", 3)], &["r a 5 -"]);
        // Another video, another request.
        let others = [(false, "r", "a", 5), (true, "r", "b", 6), (true, "q", "a", 6)];
        check(RequestAndVideo, &others, &["r a 5 -"]);
        check(Request, &others, &["r a 5 1"]);
        check(RequestAndVideo, &[(true, "r", "a", 5)], &[]);
    }

    proptest! {
        /// Every pair is looked at, as the definition says it.
        #[test]
        fn played_is_what_the_definition_says(
            events in prop::collection::vec(
                (any::<bool>(), 0..2_usize, 0..3_usize, 0..200_i64), 0..40),
            by_request in any::<bool>(),
        ) {
            let names = ["a", "b", "c"];
            let match_ = if by_request { Match::Request } else { Match::RequestAndVideo };
            let settings = settings(match_);
            let all: Vec<_> =
                events.iter().map(|(p, r, v, m)| kept(*p, names[*r], names[*v], *m)).collect();
            let mut found = Vec::new();
            let Ok(()) = label(&mut all.clone(), &settings, &mut |row| {
                let Kept { request, video, .. } = row.first;
                found.push((request, video, row.epoch, row.to_play_ms.is_some()));
                Ok::<_, Infallible>(())
            });
            let matches = |shown: &Kept<'_>, play: &Kept<'_>| {
                play.is_play && play.request == shown.request
                    && (by_request || play.video == shown.video)
                    && play.time_ms - shown.time_ms >= -MINUTE_MS
                    && play.time_ms - shown.time_ms <= 60 * MINUTE_MS
            };
            let mut expected = std::collections::BTreeMap::new();
            for shown in all.iter().filter(|event| !event.is_play) {
                let key = (shown.request, shown.video, shown.time_ms / (30 * MINUTE_MS));
                *expected.entry(key).or_insert(false) |= all.iter().any(|play| matches(shown, play));
            }
            let expected: Vec<_> =
                expected.into_iter().map(|((r, v, e), played)| (r, v, e, played)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
