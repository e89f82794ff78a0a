//! One request number -> the events that the request causes, with their lags.
//!
//! The order of the draws is part of the format: another order, or one draw more, gives other
//! bytes. Draws are made whether or not their result is used where that keeps the rest unchanged:
//! so `late_share` changes when events arrive but not what they say.

use super::draw::{Draw, Poisson, Zipf};
use super::late::LatePlan;
use super::{Arrival, GenerateError, GeneratedEvent, Options};
use marquee_model::Kind;

const PURPOSE: &[u8; 16] = b"marquee/request1";

const VIDEOS: u32 = 10_000;
const VIDEO_EXPONENT: f64 = 1.05;
/// Video ids are this + the rank of the video.
const FIRST_VIDEO: u32 = 80_000_000;

const MIN_SHOWN: u32 = 2;
const MEAN_SHOWN_ABOVE_MIN: f64 = 6.0;

/// Both lags: e^7.5 ms = 1.8 s in the median.
const LAG_MEAN: f64 = 7.5;
const LAG_DEVIATION: f64 = 1.2;
/// The delay of a play: e^3.7 s = 40 s in the median.
const DELAY_MEAN: f64 = 3.7;
const DELAY_DEVIATION: f64 = 1.3;
const DELAY_MS_MAX: i64 = 3_500_000;

/// A second delivery follows within this time.
const AGAIN_WITHIN_MS: u32 = 60_000;
/// Together with a second delivery: 20 min and 9 min.
const IMPRESSION_LAG_MS_MAX: i64 = 1_140_000;
const PLAY_LAG_MS_MAX: i64 = 480_000;
const UNPROMPTED_LAG_MS: i64 = 5_000;

const IMPRESSION_TWICE_PER_MILLE: u32 = 20;
const REAPPEARS_PER_MILLE: u32 = 50;
const PLAYED_PER_MILLE: u32 = 120;
const PLAY_TWICE_PER_MILLE: u32 = 30;
const UNPROMPTED_PER_MILLE: u32 = 5;

/// All requests of one set of options; any of them can be drawn at any time.
pub(super) struct Requests {
    options: Options,
    videos: Zipf,
    shown: Poisson,
    late: LatePlan,
}

impl Requests {
    pub(super) fn new(options: &Options) -> Result<Self, GenerateError> {
        options.check()?;
        Ok(Requests {
            options: options.clone(),
            videos: Zipf::new(VIDEOS, VIDEO_EXPONENT),
            shown: Poisson::new(MEAN_SHOWN_ABOVE_MIN),
            late: LatePlan::new(options)?,
        })
    }

    pub(super) fn count(&self) -> u64 {
        self.options.requests
    }

    /// Appends the events of a request, and returns when it starts: not before the request with
    /// the number below, and no event arrives before that.
    pub(super) fn draw(&self, number: u64, out: &mut Vec<Arrival>) -> i64 {
        let mut draw = Draw::new(PURPOSE, self.options.seed, number);
        let start_ms = self.start_ms(number, draw.word());
        let request = GeneratedEvent {
            kind: Kind::Impression,
            request_id: draw.uuid(),
            event_time_ms: start_ms,
            video: 0,
            country: draw.below(10) as u8,
            device: draw.below(5) as u8,
            row: draw.below(40) as u8,
            position: 0,
            duration_s: 0,
        };
        let mut delivery = Delivery { late: &self.late, draw, out };
        let shown = self.show(&request, &mut delivery);
        if delivery.draw.chance(PLAYED_PER_MILLE) {
            play(shown, &mut delivery);
        }
        if delivery.draw.chance(UNPROMPTED_PER_MILLE) {
            self.play_unprompted(request, &mut delivery);
        }
        start_ms
    }

    /// A uniform place in the request's stratum: floor((number + u) * span / requests).
    fn start_ms(&self, number: u64, fraction: u32) -> i64 {
        let place = u128::from(number) << 32 | u128::from(fraction);
        let scaled = place * self.options.span_ms as u128 / u128::from(self.count());
        self.options.start_ms + (scaled >> 32) as i64
    }

    /// Returns one of the impressions, each with the same probability, for a play to follow.
    fn show(&self, request: &GeneratedEvent, delivery: &mut Delivery) -> GeneratedEvent {
        let count = MIN_SHOWN + self.shown.draw(&mut delivery.draw);
        let chosen = delivery.draw.below(count);
        let batch_lag_ms = delivery.lag_ms();
        let mut time_ms = request.event_time_ms;
        let mut played = request.clone();
        for position in 0..count {
            let impression = GeneratedEvent {
                event_time_ms: time_ms,
                video: FIRST_VIDEO + self.videos.draw(&mut delivery.draw),
                position: position as u8,
                ..request.clone()
            };
            if position == chosen {
                played = impression.clone();
            }
            show_one(impression, batch_lag_ms, delivery);
            time_ms += delivery.draw.between(200, 2_999);
        }
        played
    }

    /// A play that no impression led to: from a search, or a link.
    fn play_unprompted(&self, request: GeneratedEvent, delivery: &mut Delivery) {
        let play = GeneratedEvent {
            kind: Kind::Play,
            request_id: delivery.draw.uuid(),
            video: FIRST_VIDEO + self.videos.draw(&mut delivery.draw),
            duration_s: 600,
            ..request
        };
        delivery.deliver(play, UNPROMPTED_LAG_MS, 0);
    }
}

/// An impression, and sometimes its reappearance when the member scrolls back.
fn show_one(impression: GeneratedEvent, batch_lag_ms: i64, delivery: &mut Delivery) {
    let reappears = delivery.draw.chance(REAPPEARS_PER_MILLE);
    let again = reappears.then(|| GeneratedEvent {
        event_time_ms: impression.event_time_ms + delivery.draw.between(3_000, 30_000),
        ..impression.clone()
    });
    let lag_ms = (batch_lag_ms + delivery.lag_ms()).min(IMPRESSION_LAG_MS_MAX);
    delivery.deliver(impression, lag_ms, IMPRESSION_TWICE_PER_MILLE);
    if let Some(again) = again {
        let lag_ms = (batch_lag_ms + delivery.lag_ms()).min(IMPRESSION_LAG_MS_MAX);
        delivery.deliver(again, lag_ms, 0);
    }
}

fn play(impression: GeneratedEvent, delivery: &mut Delivery) {
    let delay_s = delivery.draw.log_normal(DELAY_MEAN, DELAY_DEVIATION);
    let delay_ms = ((delay_s * 1000.0) as i64).min(DELAY_MS_MAX);
    let play = GeneratedEvent {
        kind: Kind::Play,
        event_time_ms: impression.event_time_ms + delay_ms,
        duration_s: delivery.draw.between(5, 7_199) as u16,
        ..impression
    };
    let lag_ms = delivery.lag_ms().min(PLAY_LAG_MS_MAX);
    delivery.deliver(play, lag_ms, PLAY_TWICE_PER_MILLE);
}

/// The way of one request's events to the log.
struct Delivery<'a> {
    late: &'a LatePlan,
    draw: Draw,
    out: &'a mut Vec<Arrival>,
}

impl Delivery<'_> {
    fn lag_ms(&mut self) -> i64 {
        self.draw.log_normal(LAG_MEAN, LAG_DEVIATION) as i64
    }

    /// Once, or twice with the same bytes; both are late where the first is.
    fn deliver(&mut self, event: GeneratedEvent, lag_ms: i64, twice_per_mille: u32) {
        let late_ms = self.late.lag_ms(event.kind, event.event_time_ms, self.draw.unit());
        let arrival_ms = event.event_time_ms + lag_ms + late_ms;
        if self.draw.chance(twice_per_mille) {
            let arrival_ms = arrival_ms + i64::from(self.draw.below(AGAIN_WITHIN_MS));
            self.out.push(Arrival { arrival_ms, event: event.clone() });
        }
        self.out.push(Arrival { arrival_ms, event });
    }
}
