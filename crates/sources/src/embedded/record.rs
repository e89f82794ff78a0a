//! Records on their way into the log and out of it.

/// One record to append; it borrows what the caller holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewRecord<'a> {
    /// The topic, as its index in the list that the log was opened with.
    pub topic: usize,
    /// The lane, below the log's number of lanes.
    pub lane: u32,
    /// When the record reached the log, in milliseconds since 1970 UTC. The log reads no clock.
    pub record_time_ms: i64,
    /// The key, if it has one; an empty key is a key.
    pub key: Option<&'a [u8]>,
    /// The payload, which the log never looks into.
    pub payload: &'a [u8],
}

impl NewRecord<'_> {
    /// What the size limit looks at: key and payload.
    pub(super) fn size(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.payload.len()
    }
}

/// Where an appended record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The topic, as its index.
    pub topic: usize,
    /// The lane.
    pub lane: u32,
    /// The record's offset in that lane of that topic: 0, 1, 2, and so on.
    pub offset: u64,
}

/// One record read, borrowing from a [`RecordBatch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Its offset in the lane.
    pub offset: u64,
    /// The time that it was appended with, in milliseconds since 1970 UTC.
    pub record_time_ms: i64,
    /// Its key, if it has one.
    pub key: Option<&'a [u8]>,
    /// Its payload.
    pub payload: &'a [u8],
}

/// Records read from one lane, in one reusable piece of memory.
///
/// [`EmbeddedLog::read`](super::EmbeddedLog::read) appends to it. Reading into the same batch
/// again after [`clear`](Self::clear) allocates nothing once it has grown to its working size.
#[derive(Debug, Default)]
pub struct RecordBatch {
    /// Whole frames as they stand on disk. Their heads stay between the records: copying them
    /// away would cost more than the 28 bytes each.
    pub(super) arena: Vec<u8>,
    pub(super) entries: Vec<Entry>,
}

/// Where in the arena a record's bytes are: the key, if any, and directly behind it the payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) offset: u64,
    pub(super) record_time_ms: i64,
    pub(super) start: usize,
    pub(super) key_len: Option<u32>,
    pub(super) payload_len: u32,
}

impl RecordBatch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets the records and keeps the memory.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.entries.clear();
    }

    /// How many records it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many bytes the records take, with their frames.
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// The `index`th record, in the order of reading.
    pub fn get(&self, index: usize) -> Option<RecordRef<'_>> {
        self.entries.get(index).map(|entry| self.resolve(entry))
    }

    /// The last record: reading goes on at its offset plus one.
    pub fn last(&self) -> Option<RecordRef<'_>> {
        self.entries.last().map(|entry| self.resolve(entry))
    }

    /// All records, in the order of reading.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = RecordRef<'_>> {
        self.entries.iter().map(|entry| self.resolve(entry))
    }

    fn resolve(&self, entry: &Entry) -> RecordRef<'_> {
        let payload_start = entry.start + entry.key_len.unwrap_or(0) as usize;
        RecordRef {
            offset: entry.offset,
            record_time_ms: entry.record_time_ms,
            key: entry.key_len.map(|_| &self.arena[entry.start..payload_start]),
            payload: &self.arena[payload_start..payload_start + entry.payload_len as usize],
        }
    }
}
