//! Which events come too late on purpose, and by how much.
//!
//! "Late" is what docs/semantics.md calls late under the default settings, for any number of lanes
//! up to four: the group of an epoch is dropped when the watermark passes its end by `within` +
//! `early`, and an event is late when the first epoch that it could need has been dropped. The
//! watermark follows the events, so it stops near the end of the span. Hence only events before a
//! *cut* can be late at all, and to make a share of **all** events late, a larger share of those
//! before the cut is chosen.

use super::{GenerateError, Options};
use marquee_model::Kind;

const MINUTE_MS: i64 = 60_000;
const EPOCH_MS: i64 = 30 * MINUTE_MS;
const WITHIN_MS: i64 = 60 * MINUTE_MS;
/// A group is dropped once an event has been read that is this far past its end: `within` + `early`
/// + `lateness`.
const DROPPED_AFTER_MS: i64 = WITHIN_MS + MINUTE_MS + 10 * MINUTE_MS;
/// A late event follows at least this long after it happened.
const SHORTEST_LAG_MS: i64 = 180 * MINUTE_MS;
/// The longest way from an event to the end of its epoch, from there to the event that lets the
/// group go, and more than that one's own lag.
const LAG_BEFORE_MARGIN_MS: i64 = EPOCH_MS + DROPPED_AFTER_MS + 24 * MINUTE_MS;
/// So many requests bring the 180 plays of which each of four lanes gets the 16 that the watermark
/// asks for, all but surely.
const REQUESTS_OF_MARGIN: f64 = 1500.0;

/// Lateness drawn by event.
#[derive(Debug)]
pub(super) struct LatePlan {
    impressions: Cut,
    plays: Cut,
    lag_ms: i64,
}

/// Of the events before `before_ms`, `share` are late, and of the others none.
#[derive(Debug)]
struct Cut {
    before_ms: i64,
    share: f64,
}

impl LatePlan {
    /// Fails where the share is none, or more than the span allows.
    pub(super) fn new(options: &Options) -> Result<Self, GenerateError> {
        let wanted = options.late_share;
        if !(0.0..=1.0).contains(&wanted) {
            return Err(GenerateError::BadLateShare(wanted));
        }
        let margin_ms = margin_ms(options);
        let last_dropped = options.end_ms() - margin_ms - DROPPED_AFTER_MS;
        let epoch_ms = last_dropped.div_euclid(EPOCH_MS) * EPOCH_MS;
        let possible = share_before(options, epoch_ms);
        if wanted > possible && options.requests > 0 {
            return Err(GenerateError::LateShareOutOfReach { wanted, possible });
        }
        // A play needs the epochs from `within` before it on, so it can be late when it is newer.
        let [impressions, plays] = [epoch_ms, epoch_ms + WITHIN_MS].map(|before_ms| {
            let possible = share_before(options, before_ms);
            Cut { before_ms, share: if wanted > 0.0 { wanted / possible } else { 0.0 } }
        });
        let lag_ms = SHORTEST_LAG_MS.max(LAG_BEFORE_MARGIN_MS + margin_ms);
        Ok(LatePlan { impressions, plays, lag_ms })
    }

    /// What is added to an event's lag; `chance` is uniform in [0, 1).
    pub(super) fn lag_ms(&self, kind: Kind, event_time_ms: i64, chance: f64) -> i64 {
        let cut = match kind {
            Kind::Impression => &self.impressions,
            Kind::Play => &self.plays,
        };
        if event_time_ms < cut.before_ms && chance < cut.share { self.lag_ms } else { 0 }
    }
}

/// More than a late event can be late, whatever the number of requests.
pub(super) fn largest_lag_ms(span_ms: i64) -> i64 {
    span_ms.saturating_add(SHORTEST_LAG_MS + LAG_BEFORE_MARGIN_MS)
}

/// How much longer than in a dense stream it takes until the watermark has moved: it counts
/// requests, and few requests are far apart. Never so long that no epoch is left to be late for.
fn margin_ms(options: &Options) -> i64 {
    let wanted = options.span_ms as f64 * REQUESTS_OF_MARGIN / options.requests.max(1) as f64;
    let room = options.span_ms - DROPPED_AFTER_MS - EPOCH_MS;
    (wanted as i64).max(MINUTE_MS).min(room.max(MINUTE_MS))
}

/// The share of requests that start before a time.
fn share_before(options: &Options, before_ms: i64) -> f64 {
    let share = (before_ms - options.start_ms) as f64 / options.span_ms as f64;
    share.clamp(0.0, 1.0)
}
