//! Are requests where the configuration says? A lane holds `partitioner(request id) mod N`: if the
//! producers place their records otherwise, a request's impressions and plays never meet, and a
//! request in two lanes is counted twice.
//!
//! One event in the wrong lane is a bad record and ends as a dead letter. Many of them are a wrong
//! configuration, and the process refuses to go on before any of them is committed.

use super::LaneError;
use crate::plan::Plan;
use marquee_model::{Partitioner, lane_of};
use marquee_pipeline::prepare::DeadReason;

/// So many misplaced events are a pattern, if they are also a quarter of all: with two lanes a wrong
/// partitioner is right half of the time, and with more lanes less often.
const PATTERN: u32 = 8;
/// What was seen longer ago counts half as much, again and again.
const FADES_AFTER: u32 = 4096;

/// What the events of one lane say of their partitioner.
pub(super) struct Misplaced {
    partitioner: Partitioner,
    lane: u32,
    lanes: u32,
    checked: u32,
    misplaced: u32,
    /// Of the misplaced ones, how many another rule puts into this lane.
    fit_other: u32,
    fit_key: u32,
    has_key: u32,
    example: String,
}

impl Misplaced {
    pub(super) fn new(plan: &Plan, lane: u32) -> Self {
        Self::of(plan.partitioner, lane, plan.lanes)
    }

    fn of(partitioner: Partitioner, lane: u32, lanes: u32) -> Self {
        Misplaced {
            partitioner,
            lane,
            lanes,
            checked: 0,
            misplaced: 0,
            fit_other: 0,
            fit_key: 0,
            has_key: 0,
            example: String::new(),
        }
    }

    /// Looks at one event; a reason, if its request belongs to another lane.
    #[inline]
    pub(super) fn check(&mut self, request_id: &str, key: Option<&[u8]>) -> Option<DeadReason> {
        self.checked += 1;
        let lane = lane_of(self.partitioner, request_id.as_bytes(), self.lanes);
        (lane != self.lane).then(|| self.found(request_id, key, lane))
    }

    #[cold]
    fn found(&mut self, request_id: &str, key: Option<&[u8]>, lane: u32) -> DeadReason {
        self.misplaced += 1;
        let fits = |partitioner, bytes: &[u8]| lane_of(partitioner, bytes, self.lanes) == self.lane;
        let other = |p: &&Partitioner| **p != self.partitioner && fits(**p, request_id.as_bytes());
        self.fit_other += u32::from(Partitioner::ALL.iter().any(|p| other(&p)));
        if let Some(key) = key.filter(|key| *key != request_id.as_bytes()) {
            self.has_key += 1;
            self.fit_key += u32::from(Partitioner::ALL.iter().any(|p| fits(*p, key)));
        }
        let name = self.partitioner.name();
        if self.example.is_empty() {
            let cut: String = request_id.chars().take(60).collect();
            self.example = format!("{cut:?} by {name} in partition {lane}");
        }
        DeadReason::Malformed(format!(
            "the request id belongs to partition {lane} of {} by {name}, but the record stands in \
             partition {}, where its request's other events are not",
            self.lanes, self.lane
        ))
    }

    /// Refuses to go on where misplaced events are a pattern.
    pub(super) fn refuse(&mut self) -> Result<(), LaneError> {
        if self.misplaced >= PATTERN && self.misplaced >= self.checked / 4 {
            return Err(LaneError::Misplaced {
                lane: self.lane,
                misplaced: self.misplaced,
                checked: self.checked,
                example: self.example.clone(),
                remedy: self.remedy(),
            });
        }
        if self.checked >= FADES_AFTER {
            for count in [
                &mut self.checked,
                &mut self.misplaced,
                &mut self.fit_other,
                &mut self.fit_key,
                &mut self.has_key,
            ] {
                *count /= 2;
            }
        }
        Ok(())
    }

    /// What the events themselves suggest.
    fn remedy(&self) -> String {
        let other = Partitioner::ALL.iter().find(|p| **p != self.partitioner);
        let other = other.map_or("", |p| p.name());
        if self.fit_other == self.misplaced {
            return format!(
                "They are all where {other} puts them: set [log] partitioner = \"{other}\" (and, \
                 since that is another generation, a new [store] path and [log] group)"
            );
        }
        if self.has_key == self.misplaced && self.fit_key == self.misplaced {
            return "They are placed by a record key that is not the request id: let the producers \
                    use the request id as the key"
                .to_owned();
        }
        "Let the producers use the request id as the record's key, with the partitioner of [log] \
         partitioner, and send again what stands in the wrong partitions"
            .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(partitioner: Partitioner, lanes: u32) -> Misplaced {
        Misplaced::of(partitioner, 0, lanes)
    }

    /// The first ids that a partitioner puts into lane 0.
    fn ids(partitioner: Partitioner, lanes: u32, count: usize) -> Vec<String> {
        let ids = (0..).map(|n| format!("request-{n}"));
        ids.filter(|id| lane_of(partitioner, id.as_bytes(), lanes) == 0).take(count).collect()
    }

    #[test]
    fn a_wrong_partitioner_is_refused_and_the_right_one_is_named() {
        for (set, used, lanes) in [
            (Partitioner::Murmur2, Partitioner::Crc32, 2),
            (Partitioner::Murmur2, Partitioner::Crc32, 12),
            (Partitioner::Crc32, Partitioner::Murmur2, 4),
        ] {
            let mut judge = judge(set, lanes);
            for id in ids(used, lanes, 100) {
                judge.check(&id, Some(id.as_bytes()));
            }
            let error = judge.refuse().expect_err("a pattern").to_string();
            assert!(error.contains(&format!("partitioner = \"{}\"", used.name())), "{error}");
        }
    }

    #[test]
    fn other_keys_are_recognised() {
        let mut judge = judge(Partitioner::Murmur2, 4);
        for (number, key) in ids(Partitioner::Murmur2, 4, 100).iter().enumerate() {
            judge.check(&format!("r{number}"), Some(key.as_bytes()));
        }
        let error = judge.refuse().expect_err("a pattern").to_string();
        assert!(error.contains("a record key that is not the request id"), "{error}");
    }

    #[test]
    fn a_few_among_many_are_dead_letters_and_no_reason_to_stop() {
        let mut judge = judge(Partitioner::Murmur2, 4);
        let mut dead = 0;
        for (number, id) in ids(Partitioner::Murmur2, 4, 20_000).iter().enumerate() {
            assert_eq!(judge.check(id, None), None);
            if number % 100 == 0 {
                let stray = format!("stray-{number}");
                let is_astray = lane_of(Partitioner::Murmur2, stray.as_bytes(), 4) != 0;
                assert_eq!(judge.check(&stray, None).is_some(), is_astray);
                dead += u32::from(is_astray);
            }
            judge.refuse().expect("one in a hundred is no pattern");
        }
        assert!(dead > 100);
    }
}
