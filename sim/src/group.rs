//! The group coordinator: gives each lane to one member, takes all back when members come and go,
//! and remembers commits. A member that it has lost sight of goes on working until it learns of it;
//! what it commits is refused.

use crate::script::TOPICS;
use std::collections::BTreeMap;

/// What was committed for one partition: the offset, and the note that came with it.
pub(crate) type Committed = Option<(u64, String)>;

#[derive(Debug, Default)]
pub(crate) struct Group {
    /// By lane and topic.
    pub(crate) commits: Vec<[Committed; TOPICS]>,
    members: BTreeMap<u64, Member>,
    last_member: u64,
    generation: u64,
    /// Whether the lanes are being taken back to be shared anew.
    is_rebalancing: bool,
}

#[derive(Debug, Default)]
struct Member {
    /// Lanes that it was given and has not released.
    holds: Option<Vec<u32>>,
    /// Lanes that it will be given.
    offered: Option<Vec<u32>>,
    is_dead: bool,
}

impl Group {
    pub(crate) fn new(lanes: usize) -> Self {
        Group { commits: (0..lanes).map(|_| [None, None]).collect(), ..Group::default() }
    }

    /// Lets a member in; it gets its share once all others have released theirs.
    pub(crate) fn join(&mut self) -> u64 {
        self.last_member += 1;
        self.members.insert(self.last_member, Member::default());
        self.rebalance();
        self.last_member
    }

    /// A member leaves, or is lost sight of.
    pub(crate) fn expel(&mut self, member: u64) {
        if self.members.remove(&member).is_some() {
            self.rebalance();
        }
    }

    /// A member has died; the group learns of it with the next rebalance.
    pub(crate) fn die(&mut self, member: u64) {
        if let Some(member) = self.members.get_mut(&member) {
            member.is_dead = true;
        }
    }

    /// Takes all lanes back and shares them anew.
    pub(crate) fn rebalance(&mut self) {
        self.members.retain(|_, member| !member.is_dead);
        self.is_rebalancing = true;
        self.members.values_mut().for_each(|member| member.offered = None);
        self.deal();
    }

    /// Shares the lanes, once nobody that the group knows of holds any.
    fn deal(&mut self) {
        let is_free = |member: &Member| member.holds.is_none();
        if !self.is_rebalancing || !self.members.values().all(is_free) {
            return;
        }
        (self.is_rebalancing, self.generation) = (false, self.generation + 1);
        let count = self.members.len();
        for (place, member) in self.members.values_mut().enumerate() {
            let lanes = 0..self.commits.len();
            // Another one's turn each time, so that lanes move.
            let is_its = |lane: &usize| (lane + self.generation as usize) % count == place;
            member.offered = Some(lanes.filter(is_its).map(|lane| lane as u32).collect());
        }
    }

    /// Whether the group knows this member.
    pub(crate) fn knows(&self, member: u64) -> bool {
        self.members.contains_key(&member)
    }

    /// Takes what a member was offered.
    pub(crate) fn accept(&mut self, member: u64) -> Option<Vec<u32>> {
        let member = self.members.get_mut(&member)?;
        let lanes = member.offered.take()?;
        member.holds = Some(lanes.clone());
        Some(lanes)
    }

    /// Whether a member must release what it holds.
    pub(crate) fn wants_back(&self, member: u64) -> bool {
        let holds = |member: &Member| member.holds.is_some();
        self.is_rebalancing && self.members.get(&member).is_some_and(holds)
    }

    pub(crate) fn release(&mut self, member: u64) {
        if let Some(member) = self.members.get_mut(&member) {
            member.holds = None;
        }
        self.deal();
    }

    /// Whether it takes commits of a member for a lane.
    pub(crate) fn lets_commit(&self, member: u64, lane: u32) -> bool {
        let holds = |member: &Member| member.holds.as_ref().is_some_and(|h| h.contains(&lane));
        self.members.get(&member).is_some_and(holds)
    }

    /// Whether a lane is held by one of some members, and nobody has to give any back.
    pub(crate) fn is_held_by(&self, lane: u32, is_one: impl Fn(u64) -> bool) -> bool {
        let holds = |member: &Member| member.holds.as_ref().is_some_and(|h| h.contains(&lane));
        let mut members = self.members.iter();
        !self.is_rebalancing && members.any(|(number, member)| is_one(*number) && holds(member))
    }
}
