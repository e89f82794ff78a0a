//! State on disk: sorted runs of records by request, and how one of them is found.
//!
//! The core does no I/O: it is given a [`ColdPlace`], which keeps bytes and gives them back. A run
//! is written once, in the order of the hashes of its requests. In memory stay one entry for each
//! page of about 4 KiB, and a filter of about 12 bits a request, so that a request that is not there
//! is mostly known without reading.
//!
//! Runs of several groups may lie one behind the other in the same bytes ([`keep_together`]): a
//! thousand small groups are no thousand files. Those bytes go when the last of these runs goes.

use super::saved::Unsaved;
use super::{Id, hash_of};
use foldhash::fast::FixedState;
use std::fmt::Debug;
use std::iter::Peekable;
use std::sync::Arc;
use thiserror::Error;

/// Keeps what does not fit into memory.
pub trait ColdPlace: Debug + Send + Sync {
    /// Keeps bytes until what is returned is dropped, or the process ends. `fill` appends the next
    /// piece to an empty buffer, and says whether there was one.
    fn keep(&self, fill: Fill<'_>) -> Result<Box<dyn ColdBytes>, ColdError>;
}

/// Gives out pieces of bytes, see [`ColdPlace::keep`].
pub type Fill<'a> = &'a mut dyn FnMut(&mut Vec<u8>) -> Result<bool, ColdError>;

/// Bytes that are kept.
pub trait ColdBytes: Debug + Send + Sync {
    /// Reads bytes from a position on.
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), ColdError>;
}

/// Bytes could not be kept, or not be read back. The text says what the operator can do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct ColdError(pub String);

/// Bytes between two fences, about.
const PAGE: usize = 4 << 10;
/// Bytes that are written or merged at once, about.
const PIECE: usize = 256 << 10;
/// The bytes of a record before its payload: key and length of the payload.
const HEAD: usize = 20;
/// Bits of the filter for each request. With four of them set, about one request in forty that is
/// not there is looked for in vain.
const FILTER_BITS: usize = 12;

/// Runs of one group, the oldest first. What stands in a newer one replaces what stands in an older
/// one.
#[derive(Debug, Default)]
pub(super) struct Runs {
    runs: Vec<Run>,
    failure: Option<ColdError>,
}

impl Runs {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The newest record of a request.
    pub(super) fn find(&mut self, id: Id) -> Option<Vec<u8>> {
        for run in self.runs.iter().rev() {
            match run.find(id) {
                Ok(None) => {}
                Ok(found) => return found,
                Err(error) => {
                    self.failure.get_or_insert(error);
                }
            }
        }
        None
    }

    /// Every request on disk with its newest record, in the order of their ids.
    pub(super) fn each<E>(
        &self,
        hasher: &FixedState,
        mut each: impl FnMut(Id, &[u8]) -> Result<(), Unsaved<E>>,
    ) -> Result<(), Unsaved<E>> {
        let mut readers: Vec<Reader<'_>> =
            self.runs.iter().rev().map(|run| Reader::new(run, hasher)).collect();
        loop {
            let mut next: Option<Id> = None;
            for reader in &mut readers {
                let id = reader.peek().map_err(Unsaved::Cold)?;
                next = [next, id].into_iter().flatten().min();
            }
            let Some(next) = next else { return Ok(()) };
            let mut is_told = false;
            for reader in &mut readers {
                if reader.peek().map_err(Unsaved::Cold)? == Some(next) {
                    if !is_told {
                        each(next, reader.payload())?;
                        is_told = true;
                    }
                    reader.skip();
                }
            }
        }
    }

    /// Begins to add a run of so many records, given in the order of their ids, and merges it with
    /// those that are not much larger, so that there are never many. Nothing changes before
    /// [`Runs::take`].
    pub(super) fn adding<'a, W: FnOnce(&mut Vec<u8>)>(
        &'a self,
        count: usize,
        records: impl Iterator<Item = (Id, W)> + 'a,
        hasher: &'a FixedState,
    ) -> Adding<'a, impl Iterator<Item = (Id, W)> + 'a> {
        let (mut kept, mut merged) = (self.runs.len(), count);
        while kept > 0 && self.runs[kept - 1].records <= 2 * merged {
            kept -= 1;
            merged += self.runs[kept].records;
        }
        let older = self.runs[kept..].iter().rev().map(|run| Reader::new(run, hasher)).collect();
        Adding { kept, records: records.peekable(), older, builder: Builder::new(merged) }
    }

    /// Takes what was added, kept from a position of these bytes on, instead of the runs that it
    /// replaces; no record is of use after the epoch `newest`.
    pub(super) fn take(&mut self, added: Added, bytes: &Arc<dyn ColdBytes>, at: u64, newest: i64) {
        let Added { kept, builder } = added;
        let newest = self.runs[kept..].iter().map(|run| run.newest).fold(newest, i64::max);
        self.runs.truncate(kept);
        if builder.records > 0 {
            self.runs.push(builder.finish(Part { bytes: bytes.clone(), at }, newest));
        }
    }

    /// Drops the runs of which no record is of use from this epoch on.
    pub(super) fn drop_before(&mut self, epoch: i64) {
        self.runs.retain(|run| run.newest >= epoch);
    }

    pub(super) fn clear(&mut self) {
        self.runs.clear();
    }

    /// Records on disk, those that a newer one replaces included.
    pub(super) fn records(&self) -> usize {
        self.runs.iter().map(|run| run.records).sum()
    }

    pub(super) fn disk_bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.size).sum()
    }

    /// Memory held, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        let of = |run: &Run| {
            let fences = run.fences.capacity() * size_of::<Fence>();
            size_of::<Run>() + fences + run.filter.memory_bytes()
        };
        self.runs.iter().map(of).sum()
    }

    pub(super) fn failure(&self) -> Option<&ColdError> {
        self.failure.as_ref()
    }
}

/// A run that is being written.
pub(super) struct Adding<'a, I: Iterator> {
    /// Runs before it that stay as they are.
    kept: usize,
    records: Peekable<I>,
    /// Those that it replaces, the newest first.
    older: Vec<Reader<'a>>,
    builder: Builder,
}

/// A run that was written, and how many runs before it stay.
pub(super) struct Added {
    kept: usize,
    builder: Builder,
}

impl<W: FnOnce(&mut Vec<u8>), I: Iterator<Item = (Id, W)>> Adding<'_, I> {
    /// Appends records until there is a piece, or no more of them. `retain` may shorten a record,
    /// and says whether anything is left of it.
    fn fill(
        &mut self,
        out: &mut Vec<u8>,
        retain: &mut dyn FnMut(&mut Vec<u8>) -> bool,
    ) -> Result<(), ColdError> {
        let Adding { records, older, builder, .. } = self;
        while out.len() < PIECE {
            let mut next = records.peek().map(|(id, _)| *id);
            for reader in &mut *older {
                let id = reader.peek()?;
                next = [next, id].into_iter().flatten().min();
            }
            let Some(next) = next else { break };
            builder.begin(next, out);
            let start = out.len();
            let mut is_written = false;
            if let Some((_, write)) = records.next_if(|(id, _)| *id == next) {
                write(out);
                is_written = true;
            }
            for reader in &mut *older {
                if reader.peek()? == Some(next) {
                    if !is_written {
                        out.extend_from_slice(reader.payload());
                        is_written = true;
                    }
                    reader.skip();
                }
            }
            let mut payload = out.split_off(start);
            let is_left = retain(&mut payload);
            builder.end(next, &payload, is_left, out);
        }
        Ok(())
    }

    fn finish(self) -> Added {
        Added { kept: self.kept, builder: self.builder }
    }
}

/// Bytes that were kept, and what was added with where it begins, in order.
pub(super) type KeptTogether = (Arc<dyn ColdBytes>, Vec<(Added, u64)>);

/// Keeps several runs at once, one behind the other. On an error nothing has changed.
pub(super) fn keep_together<'a, W: FnOnce(&mut Vec<u8>), I: Iterator<Item = (Id, W)>>(
    mut all: impl Iterator<Item = Adding<'a, I>>,
    place: &dyn ColdPlace,
    retain: &mut dyn FnMut(&mut Vec<u8>) -> bool,
) -> Result<KeptTogether, ColdError> {
    let (mut added, mut end) = (Vec::new(), 0);
    let mut current = all.next();
    let bytes = place.keep(&mut |out| {
        while let Some(adding) = &mut current {
            adding.fill(out, retain)?;
            if out.len() >= PIECE {
                break; // it may have more
            }
            let start = end;
            end += adding.builder.size;
            added.extend(current.take().map(|adding| (adding.finish(), start)));
            current = all.next();
        }
        Ok(!out.is_empty())
    })?;
    Ok((bytes.into(), added))
}

/// Bytes of which a run takes the part from a position on.
#[derive(Debug)]
struct Part {
    bytes: Arc<dyn ColdBytes>,
    at: u64,
}

impl Part {
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), ColdError> {
        self.bytes.read(self.at + at, into)
    }
}

/// Where a page begins.
#[derive(Clone, Copy, Debug)]
struct Fence {
    /// Hash of its first request.
    hash: u64,
    at: u64,
}

#[derive(Debug)]
struct Run {
    bytes: Part,
    size: u64,
    records: usize,
    /// The last epoch in which some record is of use.
    newest: i64,
    fences: Vec<Fence>,
    filter: Filter,
}

impl Run {
    fn find(&self, id: Id) -> Result<Option<Vec<u8>>, ColdError> {
        if !self.filter.may_have(id.hash) {
            return Ok(None);
        }
        // Requests of one hash may stand on both sides of a fence.
        let first = self.fences.partition_point(|fence| fence.hash < id.hash).saturating_sub(1);
        let mut page = Vec::new();
        for (place, fence) in self.fences.iter().enumerate().skip(first) {
            if fence.hash > id.hash {
                break;
            }
            let end = self.fences.get(place + 1).map_or(self.size, |next| next.at);
            page.resize((end - fence.at) as usize, 0);
            self.bytes.read(fence.at, &mut page)?;
            let mut rest = &page[..];
            while !rest.is_empty() {
                let record = first_record(rest)?;
                if record.words == id.words {
                    return Ok(Some(record.payload.to_vec()));
                }
                rest = record.rest;
            }
        }
        Ok(None)
    }
}

/// A record, and what follows it.
struct Record<'a> {
    words: [u64; 2],
    payload: &'a [u8],
    rest: &'a [u8],
}

fn first_record(bytes: &[u8]) -> Result<Record<'_>, ColdError> {
    let damaged = || ColdError("a file of the state is damaged; repair the disk".to_owned());
    let head = bytes.first_chunk::<HEAD>().ok_or_else(damaged)?;
    let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("8 bytes"));
    let len = u32::from_le_bytes(head[16..].try_into().expect("4 bytes")) as usize;
    let payload = bytes[HEAD..].get(..len).ok_or_else(damaged)?;
    Ok(Record { words: [word(0), word(8)], payload, rest: &bytes[HEAD + len..] })
}

/// What is known of a run while it is written.
struct Builder {
    size: u64,
    records: usize,
    fences: Vec<Fence>,
    filter: Filter,
    /// Where in the piece the record begins that is being written.
    start: usize,
}

impl Builder {
    fn new(records: usize) -> Self {
        let (fences, filter) = (Vec::new(), Filter::new(records));
        Builder { size: 0, records: 0, fences, filter, start: 0 }
    }

    fn begin(&mut self, id: Id, out: &mut Vec<u8>) {
        self.start = out.len();
        id.words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        out.extend_from_slice(&[0; 4]);
    }

    fn end(&mut self, id: Id, payload: &[u8], is_left: bool, out: &mut Vec<u8>) {
        if !is_left {
            return out.truncate(self.start);
        }
        let len = u32::try_from(payload.len()).expect("a request's facts take less than 4 GiB");
        out[self.start + 16..self.start + HEAD].copy_from_slice(&len.to_le_bytes());
        out.extend_from_slice(payload);
        if self.fences.last().is_none_or(|fence| self.size - fence.at >= PAGE as u64) {
            self.fences.push(Fence { hash: id.hash, at: self.size });
        }
        self.filter.add(id.hash);
        self.records += 1;
        self.size += (HEAD + payload.len()) as u64;
    }

    fn finish(mut self, bytes: Part, newest: i64) -> Run {
        self.fences.shrink_to_fit();
        let Builder { size, records, fences, filter, .. } = self;
        Run { bytes, size, records, newest, fences, filter }
    }
}

/// Reads a run from its beginning to its end, in pieces.
struct Reader<'a> {
    run: &'a Run,
    hasher: &'a FixedState,
    /// Where the next piece begins.
    next: u64,
    piece: Vec<u8>,
    /// Where in the piece the current record begins.
    at: usize,
    current: Option<(Id, usize)>,
}

impl<'a> Reader<'a> {
    fn new(run: &'a Run, hasher: &'a FixedState) -> Self {
        Reader { run, hasher, next: 0, piece: Vec::new(), at: 0, current: None }
    }

    /// The id of the current record, `None` at the end.
    fn peek(&mut self) -> Result<Option<Id>, ColdError> {
        if self.current.is_none() {
            if self.at == self.piece.len() && !self.load()? {
                return Ok(None);
            }
            let Record { words, payload, .. } = first_record(&self.piece[self.at..])?;
            let id = Id { words, hash: hash_of(self.hasher, words) };
            self.current = Some((id, payload.len()));
        }
        Ok(self.current.map(|(id, _)| id))
    }

    /// Reads whole pages.
    fn load(&mut self) -> Result<bool, ColdError> {
        let end = self.next + PIECE as u64;
        let fences = &self.run.fences;
        let later = &fences[fences.partition_point(|fence| fence.at < end)..];
        let end = later.first().map_or(self.run.size, |fence| fence.at);
        self.piece.resize((end - self.next) as usize, 0);
        self.run.bytes.read(self.next, &mut self.piece)?;
        (self.next, self.at) = (end, 0);
        Ok(!self.piece.is_empty())
    }

    fn payload(&self) -> &[u8] {
        let (_, len) = self.current.expect("it was peeked at");
        &self.piece[self.at + HEAD..][..len]
    }

    fn skip(&mut self) {
        let (_, len) = self.current.take().expect("it was peeked at");
        self.at += HEAD + len;
    }
}

/// A Bloom filter whose bits for one request lie in one word (a blocked Bloom filter: Putze,
/// Sanders, Singler, "Cache-, hash- and space-efficient Bloom filters", 2007).
#[derive(Debug)]
struct Filter(Box<[u64]>);

impl Filter {
    fn new(records: usize) -> Self {
        Filter(vec![0; (records * FILTER_BITS).div_ceil(64).max(1)].into())
    }

    #[inline]
    fn place(&self, hash: u64) -> (usize, u64) {
        let word = ((hash >> 32) * self.0.len() as u64) >> 32;
        let bits = [0, 6, 12, 18].iter().fold(0, |bits, shift| bits | 1 << (hash >> shift & 63));
        (word as usize, bits)
    }

    fn add(&mut self, hash: u64) {
        let (word, bits) = self.place(hash);
        self.0[word] |= bits;
    }

    #[inline]
    fn may_have(&self, hash: u64) -> bool {
        let (word, bits) = self.place(hash);
        self.0[word] & bits == bits
    }

    fn memory_bytes(&self) -> usize {
        self.0.len() * 8
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use marquee_model::RequestKey;
    use std::collections::BTreeMap;

    /// Keeps bytes in memory.
    #[derive(Debug, Default)]
    pub(in crate::join) struct InMemory;

    #[derive(Debug)]
    struct Kept(Vec<u8>);

    impl ColdPlace for InMemory {
        fn keep(&self, fill: Fill<'_>) -> Result<Box<dyn ColdBytes>, ColdError> {
            let (mut all, mut piece) = (Vec::new(), Vec::new());
            while fill(&mut piece)? {
                all.append(&mut piece);
            }
            Ok(Box::new(Kept(all)))
        }
    }

    impl ColdBytes for Kept {
        fn read(&self, at: u64, into: &mut [u8]) -> Result<(), ColdError> {
            into.copy_from_slice(&self.0[at as usize..][..into.len()]);
            Ok(())
        }
    }

    /// Takes one piece, and then no more: a disk that becomes full.
    #[derive(Debug)]
    pub(in crate::join) struct Full;

    impl ColdPlace for Full {
        fn keep(&self, fill: Fill<'_>) -> Result<Box<dyn ColdBytes>, ColdError> {
            fill(&mut Vec::new())?;
            Err(ColdError("full".to_owned()))
        }
    }

    /// Fails to read what it keeps.
    #[derive(Debug)]
    struct Broken;

    impl ColdPlace for Broken {
        fn keep(&self, fill: Fill<'_>) -> Result<Box<dyn ColdBytes>, ColdError> {
            while fill(&mut Vec::new())? {}
            Ok(Box::new(Broken))
        }
    }

    impl ColdBytes for Broken {
        fn read(&self, _: u64, _: &mut [u8]) -> Result<(), ColdError> {
            Err(ColdError("broken".to_owned()))
        }
    }

    fn hasher() -> FixedState {
        FixedState::with_seed(3)
    }

    fn add(runs: &mut Runs, place: &dyn ColdPlace, records: &BTreeMap<u64, Vec<u8>>) {
        let id = |request: u64| Id::new(&hasher(), RequestKey(u128::from(request) << 70));
        let mut sorted: Vec<(Id, &[u8])> =
            records.iter().map(|(request, payload)| (id(*request), &payload[..])).collect();
        sorted.sort();
        let count = sorted.len();
        let records = sorted
            .into_iter()
            .map(|(id, payload)| (id, move |out: &mut Vec<u8>| out.extend_from_slice(payload)));
        let mut retain = |payload: &mut Vec<u8>| payload.first() != Some(&b'x');
        let hasher = hasher();
        let adding = runs.adding(count, records, &hasher);
        let (bytes, added) =
            keep_together(std::iter::once(adding), place, &mut retain).expect("it is kept");
        added.into_iter().for_each(|(added, at)| runs.take(added, &bytes, at, 0));
    }

    fn find(runs: &mut Runs, request: u64) -> Option<Vec<u8>> {
        runs.find(Id::new(&hasher(), RequestKey(u128::from(request) << 70)))
    }

    #[test]
    fn the_newest_record_of_a_request_is_found_however_runs_were_merged() {
        let (mut runs, mut expected) = (Runs::default(), BTreeMap::new());
        for round in 0..40_u64 {
            // Runs of very different sizes, records of zero to many pages.
            let count = if round % 7 == 0 { 3_000 } else { 1 + round * 5 };
            let payload =
                |n: u64| vec![b'a'; if n.is_multiple_of(101) { 9_000 } else { n as usize % 60 }];
            let records: BTreeMap<u64, Vec<u8>> = (0..count)
                .map(|n| {
                    (n * (round + 1) % 5_000, [round.to_le_bytes().to_vec(), payload(n)].concat())
                })
                .collect();
            add(&mut runs, &InMemory, &records);
            expected.extend(records);
            assert!(runs.runs.len() < 12, "{} runs", runs.runs.len());
        }
        for request in 0..6_000 {
            assert_eq!(find(&mut runs, request).as_ref(), expected.get(&request), "{request}");
        }
        assert!(runs.memory_bytes() * 10 < runs.disk_bytes() as usize);
        assert_eq!(runs.failure(), None);
    }

    #[test]
    fn records_of_which_nothing_is_left_are_gone() {
        let mut runs = Runs::default();
        let records = [(1, b"x gone".to_vec()), (2, b"kept".to_vec())];
        add(&mut runs, &InMemory, &records.into());
        assert_eq!((find(&mut runs, 1), find(&mut runs, 2)), (None, Some(b"kept".to_vec())));
        assert_eq!(runs.records(), 1);
    }

    #[test]
    fn a_filter_seldom_sends_for_what_is_not_there() {
        let mut filter = Filter::new(10_000);
        let hash = |n: u128| Id::new(&hasher(), RequestKey(n)).hash;
        (0..10_000).for_each(|n| filter.add(hash(n)));
        assert!((0..10_000).all(|n| filter.may_have(hash(n))));
        let wrong = (10_000..110_000).filter(|n| filter.may_have(hash(*n))).count();
        assert!(wrong < 4_000, "{wrong} of 100,000");
    }

    #[test]
    fn what_cannot_be_read_back_is_a_failure_and_not_an_absence() {
        let mut runs = Runs::default();
        add(&mut runs, &Broken, &[(1, b"a".to_vec())].into());
        assert_eq!(find(&mut runs, 1), None);
        assert_eq!(runs.failure(), Some(&ColdError("broken".to_owned())));
    }
}
