//! The endless live source: members who are there while `marquee demo` runs.
//!
//! It draws like `request`, but for people who watch: the videos are those of a catalogue, their
//! popularity drifts by the second (`popularity`), events arrive within a second, and plays follow
//! within a minute. Something can happen in the world (`happenings`), and a kind of events can stop
//! (`sources`). It stands before the pipeline, in the place of the clients, and reads no clock: the
//! caller says what time it is.

use super::arrivals::UnderWay;
use super::draw::{Draw, Poisson};
use super::popularity::Popularity;
use super::sources::Sources;
use super::{Arrival, GeneratedEvent};
use marquee_model::Kind;

const REQUEST: &[u8; 16] = b"marquee/live/req";

const MIN_SHOWN: u32 = 2;
const MEAN_SHOWN_ABOVE_MIN: f64 = 6.0;
/// 1,000 requests cause 8,000 impressions, 400 that reappear, 160 second deliveries, and about 300
/// plays.
const EVENTS_PER_1000_REQUESTS: u64 = 8_860;

const IMPRESSION_TWICE_PER_MILLE: u32 = 20;
const REAPPEARS_PER_MILLE: u32 = 50;
const PLAY_TWICE_PER_MILLE: u32 = 30;

/// Requests begin this long before the first moment, so that the rate is right from then on.
const WARM_UP_MS: i64 = 30_000;
/// What nobody asked for in so long a time is left out: a machine that slept does not wake up to
/// millions of events.
const CATCH_UP_MS: i64 = 10_000;

/// An endless source of events at a steady rate, the same for a seed and a sequence of moments.
pub struct LiveMembers {
    /// What is shown: the texts of the events, by the numbers that are drawn.
    videos: Vec<&'static str>,
    seed: u64,
    rate_per_s: u64,
    shown: Poisson,
    popularity: Popularity,
    /// Nothing that arrived before this was ever given out.
    opened_ms: i64,
    next_request: u64,
    under_way: UnderWay,
    sources: Sources,
}

impl LiveMembers {
    /// Members who have been there for a while at `now_ms` (milliseconds since 1970 UTC) and who
    /// together cause about `rate_per_s` events a second. A rate of 0 gives none. The ids of the
    /// videos (at least one) must not need escaping in JSON.
    ///
    /// ```
    /// use marquee::generate::LiveMembers;
    /// let videos = vec!["late-checkout", "junction-nine"];
    /// let mut members = LiveMembers::new(videos, 7, 1_479_686_400_000, 2_000);
    /// let events = members.take_until(1_479_686_401_000);
    /// assert!((1_700..2_300).contains(&events.len()));
    /// ```
    pub fn new(videos: Vec<&'static str>, seed: u64, now_ms: i64, rate_per_s: u64) -> Self {
        assert!(!videos.is_empty(), "members need something to watch");
        LiveMembers {
            popularity: Popularity::new(seed, videos.len() as u32),
            videos,
            seed,
            rate_per_s,
            shown: Poisson::new(MEAN_SHOWN_ABOVE_MIN),
            opened_ms: now_ms,
            next_request: 0,
            under_way: UnderWay::default(),
            sources: Sources::default(),
        }
    }

    /// What arrived since the last call, in arrival order: each as one JSON object without a line
    /// feed. All of it happened in the second before it arrived, except second deliveries, which
    /// follow within two more. A moment before the last one gives nothing. What is stopped is left
    /// out.
    pub fn take_until(&mut self, now_ms: i64) -> Vec<(Kind, Vec<u8>)> {
        self.leave_out_what_was_missed(now_ms);
        self.draw_until(now_ms);
        let mut taken = Vec::new();
        while let Some(arrival) = self.under_way.pop_before(now_ms.saturating_add(1)) {
            if !self.sources.sends(&arrival) {
                continue;
            }
            let mut json = Vec::with_capacity(192);
            let name = self.videos[arrival.event.video as usize];
            arrival.event.write_json_with_video(name.as_bytes(), &mut json);
            taken.push((arrival.event.kind, json));
        }
        self.sources.forget(now_ms);
        taken
    }

    /// Something happens in the world: from what is drawn next until `until_ms`, a video is looked for
    /// `factor` times (1 to 20) as often as before, or as videos are in the mean if that is more, and
    /// played `factor` times as often by those who see it, though by nine of ten at most. False where no
    /// video has that name.
    ///
    /// ```
    /// use marquee::generate::LiveMembers;
    /// let mut members = LiveMembers::new(vec!["late-checkout"], 7, 1_479_686_400_000, 2_000);
    /// assert!(members.raise("late-checkout", 8, 1_479_686_400_000, 1_479_686_580_000));
    /// assert!(!members.raise("never-made", 8, 1_479_686_400_000, 1_479_686_580_000));
    /// ```
    pub fn raise(&mut self, video: &str, factor: u32, now_ms: i64, until_ms: i64) -> bool {
        let place = self.videos.iter().position(|name| *name == video);
        let Some(video) = place else { return false };
        self.popularity.raise(video as u32, factor, now_ms, until_ms);
        true
    }

    /// Stops or starts the events of a kind, from what arrives at `now_ms` on. What is left out is
    /// gone: it does not come later. Who was not shown a video does not play it, so plays whose
    /// impressions are left out are left out, too.
    pub fn stop(&mut self, kind: Kind, stopped: bool, now_ms: i64) {
        self.sources.stop(kind, stopped, now_ms);
    }

    fn leave_out_what_was_missed(&mut self, now_ms: i64) {
        let from_ms = now_ms.saturating_sub(CATCH_UP_MS);
        let since_ms = from_ms.saturating_sub(self.opened_ms - WARM_UP_MS);
        // The warm-up itself is longer than `CATCH_UP_MS`, and wanted.
        if from_ms > self.opened_ms {
            let passed = since_ms as u128 * u128::from(self.rate_per_s);
            let number = (passed / u128::from(EVENTS_PER_1000_REQUESTS)) as u64;
            self.next_request = self.next_request.max(number);
        }
    }

    fn draw_until(&mut self, now_ms: i64) {
        while self.rate_per_s > 0 {
            let mut draw = Draw::new(REQUEST, self.seed, self.next_request);
            let start_ms = self.start_ms(draw.word());
            if start_ms > now_ms {
                return;
            }
            self.request(start_ms, draw);
            self.next_request += 1;
        }
    }

    /// A uniform place in the stratum of the next request, as in `request`.
    fn start_ms(&self, fraction: u32) -> i64 {
        let place = u128::from(self.next_request) << 32 | u128::from(fraction);
        let scaled = place * u128::from(EVENTS_PER_1000_REQUESTS) / u128::from(self.rate_per_s);
        self.opened_ms - WARM_UP_MS + (scaled >> 32) as i64
    }

    fn request(&mut self, start_ms: i64, mut draw: Draw) {
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
        let count = MIN_SHOWN + self.shown.draw(&mut draw);
        let chosen = draw.below(count);
        self.popularity.move_to(start_ms);
        let mut time_ms = start_ms;
        for position in 0..count {
            let impression = GeneratedEvent {
                event_time_ms: time_ms,
                video: self.popularity.draw(&mut draw),
                position: position as u8,
                ..request
            };
            self.show(&impression, position == chosen, &mut draw);
            time_ms += draw.between(200, 2_999);
        }
    }

    /// An impression and what follows from it.
    fn show(&mut self, impression: &GeneratedEvent, chosen: bool, draw: &mut Draw) {
        let shown_ms = self.deliver(impression.clone(), IMPRESSION_TWICE_PER_MILLE, draw);
        if draw.chance(REAPPEARS_PER_MILLE) {
            let event_time_ms = impression.event_time_ms + draw.between(3_000, 30_000);
            self.deliver(GeneratedEvent { event_time_ms, ..impression.clone() }, 0, draw);
        }
        // Nobody plays what was shown before the demo began: such a play would match nothing.
        let take = self.popularity.take_per_mille(impression);
        if chosen
            && draw.chance(take)
            && let Some(shown_ms) = shown_ms
        {
            let play = GeneratedEvent {
                kind: Kind::Play,
                event_time_ms: impression.event_time_ms + draw.between(2_000, 59_999),
                duration_s: draw.between(5, 7_199) as u16,
                ..impression.clone()
            };
            self.sources.play_follows(play.request_id, shown_ms);
            self.deliver(play, PLAY_TWICE_PER_MILLE, draw);
        }
    }

    /// Sends an event on its way, once or twice, and says when it arrives; `None`: before the first
    /// moment.
    fn deliver(
        &mut self,
        event: GeneratedEvent,
        twice_per_mille: u32,
        draw: &mut Draw,
    ) -> Option<i64> {
        let arrival_ms = event.event_time_ms + draw.between(100, 899);
        let twice = draw.chance(twice_per_mille);
        let again_ms = arrival_ms + draw.between(0, 1_999);
        let in_time = arrival_ms >= self.opened_ms;
        if in_time {
            if twice {
                self.under_way.push(Arrival { arrival_ms: again_ms, event: event.clone() });
            }
            self.under_way.push(Arrival { arrival_ms, event });
        }
        in_time.then_some(arrival_ms)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails may panic")]
mod tests {
    use super::*;
    use marquee_server::member::catalogue::titles;
    use serde_json::Value;
    use std::collections::HashMap;

    const NOW_MS: i64 = 1_479_686_400_123;

    /// Members of the demo's service.
    fn live(seed: u64, now_ms: i64, rate_per_s: u64) -> LiveMembers {
        let videos = titles().iter().map(|title| title.id.as_str()).collect();
        LiveMembers::new(videos, seed, now_ms, rate_per_s)
    }

    /// Asks every quarter of a second.
    fn watch(members: &mut LiveMembers, from_ms: i64, seconds: i64) -> Vec<(i64, Kind, Value)> {
        let mut seen = Vec::new();
        for step in 1..=seconds * 4 {
            let now_ms = from_ms + step * 250;
            for (kind, json) in members.take_until(now_ms) {
                seen.push((now_ms, kind, serde_json::from_slice(&json).unwrap()));
            }
        }
        seen
    }

    #[test]
    fn the_rate_is_right_from_the_first_second_on() {
        let mut members = live(7, NOW_MS, 2_000);
        for second in 0..90 {
            let from_ms = NOW_MS + second * 1000;
            let count = watch(&mut members, from_ms, 1).len();
            assert!((1_750..2_250).contains(&count), "{count} in second {second}");
        }
        assert!(live(7, NOW_MS, 0).take_until(NOW_MS + 60_000).is_empty());
    }

    #[test]
    fn the_rate_holds_in_the_long_run() {
        let mut members = live(1, NOW_MS, 1_000);
        let _ = watch(&mut members, NOW_MS, 70);
        let mean = watch(&mut members, NOW_MS + 70_000, 120).len() as f64 / 120.0;
        assert!((980.0..1_020.0).contains(&mean), "{mean}");
    }

    #[test]
    fn times_are_just_before_now_and_every_play_follows_its_impression() {
        let mut members = live(7, NOW_MS, 500);
        let mut shown = HashMap::new();
        let mut plays = 0;
        for (now_ms, kind, event) in watch(&mut members, NOW_MS, 120) {
            let time_ms = event["ts"].as_i64().unwrap();
            let lag_ms = now_ms - time_ms;
            assert!((100..3_200).contains(&lag_ms), "{lag_ms}");
            let key = (event["request_id"].to_string(), event["video_id"].to_string());
            match kind {
                Kind::Impression => {
                    let first = shown.entry(key).or_insert(time_ms);
                    *first = time_ms.min(*first);
                }
                Kind::Play => {
                    plays += 1;
                    assert!((2_000..120_000).contains(&(time_ms - shown[&key])));
                }
            }
        }
        assert!(plays > 1_000, "{plays}");
    }

    #[test]
    fn the_leading_videos_change_within_a_minute() {
        let mut members = live(7, NOW_MS, 2_000);
        // How often each was shown so far, as a page that counts an epoch would show it.
        let mut counts: HashMap<String, u32> = HashMap::new();
        let mut leading = Vec::new();
        for minute in 0..20 {
            for (_, _, event) in watch(&mut members, NOW_MS + minute * 60_000, 60) {
                *counts.entry(event["video_id"].to_string()).or_default() += 1;
            }
            let mut ranks: Vec<_> = counts.iter().collect();
            ranks.sort_by_key(|(name, count)| (u32::MAX - **count, name.to_string()));
            leading.push(ranks.iter().take(10).map(|(name, _)| name.to_string()).collect());
        }
        for (minute, two) in leading.windows(2).enumerate() {
            let [before, after]: &[Vec<String>; 2] = two.try_into().unwrap();
            assert_ne!(before, after, "nothing moved in minute {minute}");
        }
        assert_eq!(counts.len(), titles().len());
    }

    /// Impressions and plays of one video, second deliveries included.
    fn counts_of(events: &[(i64, Kind, Value)], video: &str) -> (usize, usize) {
        let of = |wanted: Kind| {
            let is_it = |(_, kind, event): &&(i64, Kind, Value)| {
                *kind == wanted && event["video_id"] == video
            };
            events.iter().filter(is_it).count()
        };
        (of(Kind::Impression), of(Kind::Play))
    }

    #[test]
    fn an_event_raises_impressions_and_the_take_rate_until_it_ends() {
        // Taken by 10 % of those who could, as rarely as any.
        let video = titles()[0].id.as_str();
        let minute_ms = 60_000;
        let mut calm = live(7, NOW_MS, 2_000);
        let mut moved = live(7, NOW_MS, 2_000);
        assert_eq!(watch(&mut calm, NOW_MS, 60), watch(&mut moved, NOW_MS, 60));
        let start_ms = NOW_MS + minute_ms;
        assert!(moved.raise(video, 6, start_ms, start_ms + 3 * minute_ms));
        let (calm_seen, calm_played) = counts_of(&watch(&mut calm, start_ms, 180), video);
        let (seen, played) = counts_of(&watch(&mut moved, start_ms, 180), video);
        assert!(seen > 2 * calm_seen, "{seen} against {calm_seen}");
        // The share of those who play, compared without dividing.
        assert!(played * calm_seen > 2 * calm_played * seen, "{played} against {calm_played}");
        // Plays follow within two minutes; after that nothing is left of it.
        let later_ms = start_ms + 3 * minute_ms;
        let _ = (watch(&mut calm, later_ms, 120), watch(&mut moved, later_ms, 120));
        let later_ms = later_ms + 2 * minute_ms;
        let (calm_seen, _) = counts_of(&watch(&mut calm, later_ms, 120), video);
        let (seen, _) = counts_of(&watch(&mut moved, later_ms, 120), video);
        assert!(seen.abs_diff(calm_seen) * 4 < calm_seen, "{seen} against {calm_seen}");
    }

    #[test]
    fn an_event_of_a_video_that_there_is_not_changes_nothing() {
        let mut members = live(7, NOW_MS, 300);
        assert!(!members.raise("never-made", 6, NOW_MS, NOW_MS + 60_000));
        let mut calm = live(7, NOW_MS, 300);
        assert_eq!(watch(&mut calm, NOW_MS, 20), watch(&mut members, NOW_MS, 20));
    }

    /// Seen while each kind is stopped from the 20th to the 50th second, with what a calm one shows.
    fn stopped(kind: Kind) -> [Vec<(i64, Kind, Value)>; 2] {
        let (from_ms, until_ms) = (NOW_MS + 20_000, NOW_MS + 50_000);
        let calm = watch(&mut live(7, NOW_MS, 500), NOW_MS, 150);
        let mut members = live(7, NOW_MS, 500);
        let mut seen = watch(&mut members, NOW_MS, 20);
        members.stop(kind, true, from_ms);
        // Asked for twice, it is stopped once.
        members.stop(kind, true, from_ms + 1);
        seen.extend(watch(&mut members, from_ms, 30));
        members.stop(kind, false, until_ms);
        seen.extend(watch(&mut members, until_ms, 100));
        let is_left_out = |(now_ms, of, _): &(i64, Kind, Value)| {
            *of == kind && from_ms < *now_ms && *now_ms <= until_ms
        };
        assert!(!seen.iter().any(is_left_out), "{kind:?} were sent while they were stopped");
        [calm.into_iter().filter(|event| !is_left_out(event)).collect(), seen]
    }

    #[test]
    fn plays_that_are_stopped_are_gone_and_all_else_stays() {
        let [calm, seen] = stopped(Kind::Play);
        assert_eq!(calm, seen);
    }

    #[test]
    fn with_an_impression_its_play_is_left_out() {
        let [calm, seen] = stopped(Kind::Impression);
        let of = |events: &[(i64, Kind, Value)], wanted: Kind| -> Vec<Value> {
            let of_kind = events.iter().filter(|(_, kind, _)| *kind == wanted);
            of_kind.map(|(_, _, event)| event.clone()).collect()
        };
        let impressions = of(&seen, Kind::Impression);
        assert_eq!(of(&calm, Kind::Impression), impressions);
        let key = |event: &Value| (event["request_id"].to_string(), event["video_id"].to_string());
        let shown: HashMap<_, ()> = impressions.iter().map(|event| (key(event), ())).collect();
        let plays = of(&seen, Kind::Play);
        assert!(plays.iter().all(|play| shown.contains_key(&key(play))));
        // Some were left out, and those of what was shown before and after were not.
        let calm_plays = of(&calm, Kind::Play).len();
        assert!((calm_plays / 2..calm_plays * 9 / 10).contains(&plays.len()), "{}", plays.len());
        let while_stopped = |(now_ms, kind, _): &&(i64, Kind, Value)| {
            *kind == Kind::Play && (NOW_MS + 20_000..NOW_MS + 50_000).contains(now_ms)
        };
        assert!(seen.iter().filter(while_stopped).count() > 100);
    }

    #[test]
    fn it_depends_on_the_seed_and_the_moments_alone() {
        let run = |seed| watch(&mut live(seed, NOW_MS, 300), NOW_MS, 20);
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        // Where nothing is missed, not even on the moments.
        let mut seldom = live(7, NOW_MS, 300);
        let seldom: Vec<_> = [NOW_MS + 9_000, NOW_MS + 15_000, NOW_MS + 20_000]
            .into_iter()
            .flat_map(|now_ms| seldom.take_until(now_ms))
            .map(|(kind, json)| (kind, serde_json::from_slice(&json).unwrap()))
            .collect();
        let often: Vec<(Kind, Value)> =
            run(7).into_iter().map(|(_, kind, event)| (kind, event)).collect();
        assert_eq!(often, seldom);
    }

    #[test]
    fn a_machine_that_slept_does_not_catch_up_and_one_whose_clock_went_back_waits() {
        let mut members = live(7, NOW_MS, 1_000);
        assert!(members.take_until(NOW_MS + 1_000).len() > 800);
        assert!(members.take_until(NOW_MS - 5_000).is_empty());
        let hour_ms = 3_600_000;
        let woken = members.take_until(NOW_MS + hour_ms).len();
        assert!((3_000..20_000).contains(&woken), "{woken}");
        let after = watch(&mut members, NOW_MS + hour_ms, 20).len();
        assert!((15_000..22_000).contains(&after), "{after}");
    }
}
