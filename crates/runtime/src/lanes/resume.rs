//! Where a lane goes on: decided from what this process's store knows and what was committed to
//! the log by whoever had the lane last.
//!
//! Either one may be ahead: the log, because another process has had the lane meanwhile; the
//! store, because a process died between writing and committing. Neither is mixed with the other:
//! a position is only worth something with the frontier and the results that belong to it.

use super::gaps::{self, ELSEWHERE, Unread};
use super::note::{ANY_EPOCH, Note, first_needed};
use super::snapshots::{self, Chosen, Refused};
use super::{LaneError, LanesSettings};
use marquee_sinks::{Gap, LaneState, Sink};
use marquee_sources::AssignedLane;
use std::collections::BTreeMap;

/// How a lane begins.
#[derive(Clone, Debug)]
pub(super) struct Resumption {
    pub(super) lane: u32,
    /// Where it goes on.
    pub(super) state: LaneState,
    /// Whether there is any history to rebuild.
    pub(super) is_new: bool,
    /// Whether the store is where `state` is: then it must hold what the log proves, no more and
    /// no less.
    pub(super) is_own: bool,
    /// Where reading begins, by topic.
    pub(super) from: Vec<u64>,
    /// Cells that may lack members.
    pub(super) gaps: Vec<Gap>,
    /// Whether the store may hold members of open cells that a rebuild does not find: because it is
    /// ahead of the position in some topic, or because the log no longer has what they were made
    /// of. Then these cells are seeded with what the store holds, and grow by what is not among it
    /// (invariant COUNT: they never shrink).
    pub(super) is_seeded: bool,
    /// Records that are gone unread.
    pub(super) unread: Vec<Unread>,
    /// The snapshot from which the state goes on; without one it is made from the log alone.
    pub(super) snapshot: Option<Chosen>,
    /// Snapshots that must not be tried again.
    pub(super) refused: Refused,
}

impl Resumption {
    pub(super) fn of(
        assigned: &AssignedLane,
        settings: &LanesSettings,
        store: &dyn Sink,
        refused: Refused,
    ) -> Result<Resumption, LaneError> {
        let own = store.lane_state(assigned.lane)?;
        let note = best_note(assigned, settings)?;
        let mut resumption = decide(assigned.lane, own, note, settings, store.is_shared());
        check_topics(&resumption.state, settings)?;
        resumption.refused = refused;
        resumption.snapshot = snapshots::choose(&resumption, assigned, settings);
        resumption.state.life += 1;
        let snapshot = resumption.snapshot.as_ref();
        resumption.state.snapshot = snapshot.map(|s| s.name.clone()).unwrap_or_default();
        resumption.place(assigned, settings)?;
        Ok(resumption)
    }

    /// Finds out where reading begins, and what is missing there.
    fn place(
        &mut self,
        assigned: &AssignedLane,
        settings: &LanesSettings,
    ) -> Result<(), LaneError> {
        let plan = &settings.plan;
        let needed = plan.settings.oldest_needed_by(self.state.frontier);
        for topic in 0..self.state.next_offsets.len() {
            let (start, end) = (assigned.start_offsets[topic], assigned.end_offsets[topic]);
            let committed = self.state.next_offsets[topic];
            if committed > end {
                return Err(LaneError::LogLost {
                    lane: self.lane,
                    topic: plan.topics()[topic].clone(),
                    committed,
                    start,
                    end,
                });
            }
            let snapshot = self.snapshot.as_ref().map(|snapshot| snapshot.next_offsets[topic]);
            let first = snapshot.unwrap_or_else(|| first_needed(&self.state, topic, needed));
            if snapshot.is_some() {
                // What the log has lost before it is in the state.
            } else if first < start && self.state.smallest_offsets[topic].contains_key(&ANY_EPOCH) {
                // Which epochs have lost records is not known.
                self.is_seeded |= !self.is_new;
                self.unread.push(Unread { topic, from_offset: first, to_offset: start });
                self.state.next_offsets[topic] = committed.max(start);
            } else if first < start {
                // What is gone may be in the store all the same: it may be ahead of the position.
                self.is_seeded |= !self.is_new;
                let gaps = gaps::of_rebuild(plan, self.lane, &self.state, topic, start);
                Gap::add(&mut self.state.gaps, gaps);
            }
            if committed < start && self.unread.iter().all(|unread| unread.topic != topic) {
                let unread = Unread { topic, from_offset: committed, to_offset: start };
                self.unread.push(unread);
                self.state.next_offsets[topic] = start;
            }
            self.from.push(first.max(start));
        }
        Gap::add(&mut self.gaps, self.state.gaps.iter().cloned());
        Ok(())
    }
}

/// The furthest of the notes that are ours.
fn best_note(assigned: &AssignedLane, settings: &LanesSettings) -> Result<Option<Note>, LaneError> {
    let topics = settings.plan.topics().len();
    let mut best: Option<Note> = None;
    for text in &assigned.notes {
        if let Some(version) = Note::newer_version(text) {
            return Err(LaneError::NewerNote { lane: assigned.lane, version });
        }
        let Some(note) = Note::read(text, topics) else {
            tracing::warn!(
                lane = assigned.lane,
                "the group has an offset that marquee did not commit; it is ignored, and the lane \
                 goes on where its store says, or at the beginning of the log"
            );
            continue;
        };
        if note.settings != settings.name {
            return Err(LaneError::OtherGroup { lane: assigned.lane });
        }
        if best.as_ref().is_none_or(|best| best.offsets_sum() < note.offsets_sum()) {
            best = Some(note);
        }
    }
    Ok(best)
}

fn check_topics(state: &LaneState, settings: &LanesSettings) -> Result<(), LaneError> {
    let topics = settings.plan.topics();
    for ((was, is), topic) in state.topic_ids.iter().zip(&settings.topic_ids).zip(topics) {
        if !was.is_empty() && !is.is_empty() && was != is {
            return Err(LaneError::Recreated { topic, was: was.clone(), is: is.clone() });
        }
    }
    Ok(())
}

/// Chooses between what the store knows and what the group was told.
fn decide(
    lane: u32,
    own: Option<LaneState>,
    note: Option<Note>,
    settings: &LanesSettings,
    is_shared: bool,
) -> Resumption {
    let topics = settings.plan.topics().len();
    let new = LaneState {
        next_offsets: vec![0; topics],
        smallest_offsets: vec![BTreeMap::new(); topics],
        ..LaneState::default()
    };
    let is_new = own.is_none() && note.is_none();
    let own_state = own.clone().unwrap_or_else(|| new.clone());
    // A frontier that the group was told must not move back, either, wherever the positions are:
    // what is counted after it in an epoch that another process has closed, its store never gets.
    let is_behind = |note: &Note| {
        if is_shared && own.is_some() {
            // Whoever had the lane has written into this store, and has told the group only what was
            // written: its states are in one order, and the last one stands here.
            return note.offsets_sum() > own_state.next_offsets.iter().sum();
        }
        let mut positions = note.next.iter().zip(&own_state.next_offsets);
        positions.any(|(theirs, ours)| theirs > ours) || note.frontier() > own_state.frontier
    };
    let mut resumption = Resumption {
        lane,
        is_new,
        is_own: true,
        state: own_state.clone(),
        from: Vec::new(),
        gaps: Vec::new(),
        is_seeded: false,
        unread: Vec::new(),
        snapshot: None,
        refused: Refused::default(),
    };
    if let Some(note) = note.as_ref().filter(|note| !is_behind(note)) {
        // The group is no further, but whoever committed last may know more of what is missing.
        let known = note.state().gaps;
        Gap::add(&mut resumption.state.gaps, known);
    }
    if let Some(note) = note.filter(is_behind) {
        let mut state = note.state();
        resumption.gaps = counted_elsewhere(lane, &own_state, &state, settings);
        state.frontier = state.frontier.max(own_state.frontier);
        (state.late_bytes, state.dead_bytes) = (own_state.late_bytes, own_state.dead_bytes);
        state.letters.clone_from(&own_state.letters);
        Gap::add(&mut state.gaps, own_state.gaps.iter().cloned());
        state.seeded_to = own_state.seeded_to;
        state.life = own_state.life;
        (resumption.state, resumption.is_own) = (state, false);
        resumption.is_seeded = own.is_some();
    }
    resumption.is_seeded |= resumption.state.seeded_to > resumption.state.frontier;
    resumption.state.topic_ids = match resumption.state.topic_ids.is_empty() {
        true => settings.topic_ids.clone(),
        false => resumption.state.topic_ids,
    };
    resumption
}

/// Epochs that are closed now and that another member may have added to since this store had the
/// lane: what it added is in its own store. It began at the frontier that this process had told the
/// group, or later.
fn counted_elsewhere(
    lane: u32,
    own: &LaneState,
    theirs: &LaneState,
    settings: &LanesSettings,
) -> Vec<Gap> {
    let length_ms = settings.plan.settings.longest_ms();
    let from = own.told_frontier.min(own.frontier);
    let to = theirs.frontier.max(own.frontier);
    if from >= to {
        return Vec::new();
    }
    tracing::warn!(
        lane,
        "another member of the group has had this lane, and closed epochs are in its store alone: \
         here they are served as incomplete. (A store that was emptied on purpose needs a new \
         [log] group, too, to be filled from the beginning)"
    );
    let gap = |(topic, name): (usize, String)| Gap {
        lane,
        topic: name,
        from_offset: own.next_offsets[topic],
        to_offset: theirs.next_offsets[topic],
        from_ms: from * length_ms,
        to_ms: to * length_ms,
        reason: ELSEWHERE.to_owned(),
    };
    let topics = settings.plan.topics().into_iter().enumerate();
    topics.map(gap).filter(|gap| gap.from_offset < gap.to_offset).collect()
}
