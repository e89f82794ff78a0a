//! The memory of a group's regions: words in chunks, so that growing copies nothing and wastes at
//! most one chunk, and regions that were given back are used again.

/// Words of a chunk: 128 KiB.
const CHUNK: usize = 1 << 14;
/// No region.
const NONE: u32 = u32::MAX;

/// Regions of 8-byte words. A region has a size class; those of one class have one size.
#[derive(Debug, Default)]
pub(super) struct Arena {
    /// A region larger than a chunk has one of its own, followed by empty ones for the rest of its
    /// addresses.
    chunks: Vec<Vec<u64>>,
    /// The chunk that is being filled.
    open: usize,
    /// By class, the first free region; its first word is the address of the next.
    free: Vec<u32>,
}

impl Arena {
    /// A region of a class, which is so many words long. What it holds is arbitrary.
    #[inline]
    pub(super) fn take(&mut self, class: usize, words: usize) -> u32 {
        match self.free.get(class) {
            Some(&region) if region != NONE => {
                self.free[class] = self.at(region, 1)[0] as u32;
                region
            }
            _ => self.grow(words),
        }
    }

    /// Gives a region back.
    #[inline]
    pub(super) fn give_back(&mut self, class: usize, region: u32) {
        if self.free.len() <= class {
            self.free.resize(class + 1, NONE);
        }
        let next = std::mem::replace(&mut self.free[class], region);
        self.at_mut(region, 1)[0] = u64::from(next);
    }

    fn grow(&mut self, words: usize) -> u32 {
        let has_room = |chunk: &Vec<u64>| chunk.len() + words <= CHUNK;
        if !self.chunks.get(self.open).is_some_and(has_room) {
            self.open = self.chunks.len();
            // The first one is as large as it must be: a quiet lane has many groups.
            let capacity = if self.open == 0 { words } else { CHUNK.max(words) };
            self.chunks.push(Vec::with_capacity(capacity));
            let more = words.div_ceil(CHUNK) - 1;
            self.chunks.extend(std::iter::repeat_with(Vec::new).take(more));
            let end = self.chunks.len() * CHUNK;
            assert!(end <= NONE as usize, "an epoch of a lane holds less than 32 GiB of facts");
        }
        let chunk = &mut self.chunks[self.open];
        let at = chunk.len();
        chunk.resize(at + words, 0);
        (self.open * CHUNK + at) as u32
    }

    /// The first words of a region.
    #[inline]
    pub(super) fn at(&self, region: u32, words: usize) -> &[u64] {
        let at = region as usize % CHUNK;
        &self.chunks[region as usize / CHUNK][at..at + words]
    }

    /// The first words of a region, to be written.
    #[inline]
    pub(super) fn at_mut(&mut self, region: u32, words: usize) -> &mut [u64] {
        let at = region as usize % CHUNK;
        &mut self.chunks[region as usize / CHUNK][at..at + words]
    }

    /// Memory held, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        let words: usize = self.chunks.iter().map(Vec::capacity).sum();
        words * 8 + self.chunks.capacity() * size_of::<Vec<u64>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_of_all_sizes_stay_apart_and_are_used_again() {
        let mut arena = Arena::default();
        let sizes = [3, 18, 3 * CHUNK + 1, 700, CHUNK, CHUNK + 1, 5];
        let take = |arena: &mut Arena, round: usize| {
            let regions: Vec<u32> =
                sizes.iter().enumerate().map(|(class, words)| arena.take(class, *words)).collect();
            for (class, region) in regions.iter().enumerate() {
                arena.at_mut(*region, sizes[class]).fill((100 * round + class) as u64);
            }
            regions
        };
        let rounds: Vec<Vec<u32>> = (0..50).map(|round| take(&mut arena, round)).collect();
        for (round, regions) in rounds.iter().enumerate() {
            for (class, region) in regions.iter().enumerate() {
                let expected = (100 * round + class) as u64;
                let words = arena.at(*region, sizes[class]);
                assert!(words.iter().all(|word| *word == expected), "{round} {class}");
            }
        }
        let before = arena.memory_bytes();
        for (class, region) in rounds.iter().flat_map(|regions| regions.iter().enumerate()) {
            arena.give_back(class, *region);
        }
        for round in 0..50 {
            take(&mut arena, round);
        }
        assert_eq!(arena.memory_bytes(), before);
    }
}
