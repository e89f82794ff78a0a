//! What of a group goes to disk, and comes back.

use super::super::cold::{self, ColdError, ColdPlace};
use super::super::{Id, hash_of};
use super::{Arena, Fact, Group, Handle, KEY, Layout, Slot, capacity_for, key_at};
use hashbrown::HashTable;

/// What goes to disk and comes back.
impl Group {
    /// Moves everything of some groups that is in memory to disk, all into the same bytes.
    pub(in crate::join) fn spill(
        groups: &mut [&mut Group],
        place: &dyn ColdPlace,
    ) -> Result<(), ColdError> {
        let all = groups.iter().map(|group| group.adding());
        let (bytes, added) = cold::keep_together(all, place, &mut |_| true)?;
        for (group, (added, at)) in groups.iter_mut().zip(added) {
            group.cold.take(added, &bytes, at, 0);
            group.slots = HashTable::new();
            group.arena = Arena::default();
            group.layout = Layout::Narrow;
            group.heavy.clear();
            group.facts = 0;
        }
        Ok(())
    }

    /// What is in memory, as a run.
    fn adding(&self) -> cold::Adding<'_, impl Iterator<Item = (Id, impl FnOnce(&mut Vec<u8>))>> {
        let (arena, hasher, layout) = (&self.arena, &self.hasher, self.layout);
        let mut sorted: Vec<(u64, Slot)> = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            sorted.push((hash_of(hasher, key_at(arena, *slot)), *slot));
        }
        sorted.sort_unstable_by_key(|(hash, slot)| (*hash, key_at(arena, *slot)));
        let count = sorted.len();
        let records = sorted.into_iter().map(move |(hash, slot)| {
            let id = Id { words: key_at(arena, slot), hash };
            let write = move |out: &mut Vec<u8>| {
                let words = layout.words(capacity_for(slot.len.max(1)) as usize);
                out.push(u8::from(layout == Layout::Wide));
                out.extend_from_slice(&slot.len.to_le_bytes());
                // The unused words of a region are left out of a narrow one, which is most of them.
                let words = match layout {
                    Layout::Narrow => KEY + slot.len as usize,
                    Layout::Wide => words,
                };
                for word in &arena.at(slot.region, words)[KEY..] {
                    out.extend_from_slice(&word.to_le_bytes());
                }
            };
            (id, write)
        });
        self.cold.adding(count, records, hasher)
    }

    /// Brings a request back into memory, if it is on disk.
    #[cold]
    pub(super) fn bring_back(&mut self, id: Id) -> Option<Handle> {
        let record = self.cold.find(id)?;
        let facts = facts_of_record(&record);
        let handle = self.insert(id);
        for fact in facts {
            self.push(handle, fact);
        }
        Some(handle)
    }

    /// Why something could not be read back, if that has happened: the state is not whole any more.
    pub(in crate::join) fn failure(&self) -> Option<&ColdError> {
        self.cold.failure()
    }
}

/// The facts of a record that [`Group::spill`] wrote.
pub(super) fn facts_of_record(record: &[u8]) -> Vec<Fact> {
    let u32_at = |at: usize| u32::from_le_bytes(record[at..at + 4].try_into().expect("4 bytes"));
    let word = |at: usize| u64::from_le_bytes(record[at..at + 8].try_into().expect("8 bytes"));
    let (is_wide, len) = (record[0] == 1, u32_at(1));
    let tuples = 5 + 8 * capacity_for(len.max(1)) as usize;
    let fact = |place: usize| {
        let tuple = if is_wide { u32_at(tuples + 4 * place) } else { 0 };
        Fact::from_word(word(5 + 8 * place), tuple)
    };
    (0..len as usize).map(fact).collect()
}
