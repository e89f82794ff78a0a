//! Members in order, however many there are: sorted in memory a piece at a time, written to
//! temporary files beyond a limit, and merged while they are read.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};

/// A member of a cell, its texts as numbers. It is ordered as its fields stand: all members of a
/// lane's epoch come one after the other, and so do those of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CellMember {
    /// The (longest) epoch.
    pub(super) epoch: i64,
    pub(super) lane: u32,
    pub(super) length: u8,
    pub(super) start_offset_ms: u32,
    pub(super) slice: u32,
    pub(super) video: u32,
    /// 0 for impressions, 1 for plays.
    pub(super) side: u8,
    /// The request's key, high half first.
    pub(super) request: [u64; 2],
}

/// Bytes of a member in a file.
const BYTES: usize = 42;

impl CellMember {
    fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&self.epoch.to_le_bytes());
        let words = [self.lane, self.start_offset_ms, self.slice, self.video];
        for (place, word) in words.into_iter().enumerate() {
            bytes[8 + 4 * place..][..4].copy_from_slice(&word.to_le_bytes());
        }
        for (place, half) in self.request.into_iter().enumerate() {
            bytes[24 + 8 * place..][..8].copy_from_slice(&half.to_le_bytes());
        }
        (bytes[40], bytes[41]) = (self.length, self.side);
        out.write_all(&bytes)
    }

    /// The next member of a file; `None` at its end.
    fn read(from: &mut impl Read) -> std::io::Result<Option<Self>> {
        let mut bytes = [0; BYTES];
        match from.read_exact(&mut bytes) {
            Ok(()) => {}
            // Whole members were written, so only the end of the last one is an end.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let long = |at: usize| {
            u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes are eight"))
        };
        let word = |at: usize| {
            u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes are four"))
        };
        Ok(Some(CellMember {
            epoch: long(0) as i64,
            lane: word(8),
            start_offset_ms: word(12),
            slice: word(16),
            video: word(20),
            request: [long(24), long(32)],
            length: bytes[40],
            side: bytes[41],
        }))
    }
}

/// Takes members in any order.
pub(super) struct Sorter {
    members: Vec<CellMember>,
    /// How many may be in memory.
    most: usize,
    /// What did not fit. The files have no names: they go with the process.
    runs: Vec<File>,
    /// The first error of a file: members may be missing then.
    failed: Option<std::io::Error>,
}

impl Sorter {
    pub(super) fn new(memory_bytes: u64) -> Self {
        let most = (memory_bytes as usize / size_of::<CellMember>()).max(1024);
        Sorter { members: Vec::new(), most, runs: Vec::new(), failed: None }
    }

    pub(super) fn push(&mut self, member: CellMember) {
        self.members.push(member);
        if self.members.len() >= self.most {
            if let Err(error) = self.spill() {
                self.failed.get_or_insert(error);
            }
            self.members.clear();
        }
    }

    fn spill(&mut self) -> std::io::Result<()> {
        self.members.sort_unstable();
        let mut out = BufWriter::with_capacity(1 << 20, tempfile::tempfile()?);
        self.members.iter().try_for_each(|member| member.write(&mut out))?;
        let mut file = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        file.seek(SeekFrom::Start(0))?;
        self.runs.push(file);
        Ok(())
    }
}

/// Some members in order.
enum Run {
    Memory(std::vec::IntoIter<CellMember>),
    Disk(BufReader<File>),
}

impl Run {
    fn next(&mut self) -> std::io::Result<Option<CellMember>> {
        match self {
            Run::Memory(members) => Ok(members.next()),
            Run::Disk(file) => CellMember::read(file),
        }
    }
}

/// All members of some sorters, in order.
pub(super) struct Merge {
    runs: Vec<Run>,
    /// The next member of each run that has one.
    next: BinaryHeap<Reverse<(CellMember, usize)>>,
}

impl Merge {
    pub(super) fn of(sorters: Vec<Sorter>) -> std::io::Result<Self> {
        let mut runs = Vec::new();
        for mut sorter in sorters {
            if let Some(error) = sorter.failed {
                return Err(error);
            }
            sorter.members.sort_unstable();
            runs.push(Run::Memory(sorter.members.into_iter()));
            let disk = |file| Run::Disk(BufReader::with_capacity(64 << 10, file));
            runs.extend(sorter.runs.into_iter().map(disk));
        }
        let mut merge = Merge { runs, next: BinaryHeap::new() };
        for number in 0..merge.runs.len() {
            merge.refill(number)?;
        }
        Ok(merge)
    }

    fn refill(&mut self, run: usize) -> std::io::Result<()> {
        if let Some(member) = self.runs[run].next()? {
            self.next.push(Reverse((member, run)));
        }
        Ok(())
    }

    /// The one that [`Merge::next`] will give.
    pub(super) fn peek(&self) -> Option<&CellMember> {
        self.next.peek().map(|Reverse((member, _))| member)
    }

    pub(super) fn next(&mut self) -> std::io::Result<Option<CellMember>> {
        let Some(Reverse((member, run))) = self.next.pop() else { return Ok(None) };
        self.refill(run)?;
        Ok(Some(member))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_come_back_in_order_from_memory_and_from_files() {
        // Enough for a few runs of each sorter, and for members that stay in memory.
        let member = |n: u64| CellMember {
            epoch: (n * 7919 % 5) as i64 - 1,
            lane: (n % 3) as u32,
            length: (n % 2) as u8,
            start_offset_ms: (n % 11) as u32 * 60_000,
            slice: (n % 13) as u32,
            video: (n * 31 % 101) as u32,
            side: (n / 2 % 2) as u8,
            request: [n, u64::MAX - n],
        };
        let mut sorters = [Sorter::new(0), Sorter::new(0)];
        (0..9_000).for_each(|n| sorters[(n % 2) as usize].push(member(n)));
        assert!(sorters.iter().all(|sorter| sorter.runs.len() > 2 && !sorter.members.is_empty()));
        let mut merge = Merge::of(sorters.into()).expect("it reads");
        let mut expected: Vec<_> = (0..9_000).map(member).collect();
        expected.sort_unstable();
        for expected in expected {
            assert_eq!(merge.peek(), Some(&expected));
            assert_eq!(merge.next().expect("it reads"), Some(expected));
        }
        assert_eq!(merge.next().expect("it reads"), None);
    }
}
