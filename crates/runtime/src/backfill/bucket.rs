//! Buckets of events, scattered by request: in memory up to a limit, then in temporary files.

use marquee_model::{Kind, RequestKey};
use marquee_pipeline::join::Event;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Events in a page.
const PAGE: usize = 1024;

/// An event in 32 bytes.
#[derive(Clone, Copy)]
struct Packed {
    request: [u64; 2],
    time_ms: i64,
    video: u32,
    /// `tuple << 1`, plus 1 for a play.
    tuple_and_kind: u32,
}

impl Packed {
    fn of(event: &Event) -> Self {
        Packed {
            request: [(event.request.0 >> 64) as u64, event.request.0 as u64],
            time_ms: event.time_ms,
            video: event.video,
            tuple_and_kind: event.tuple << 1 | u32::from(event.kind == Kind::Play),
        }
    }

    fn event(self) -> Event {
        Event {
            kind: if self.tuple_and_kind & 1 == 1 { Kind::Play } else { Kind::Impression },
            request: RequestKey(u128::from(self.request[0]) << 64 | u128::from(self.request[1])),
            video: self.video,
            tuple: self.tuple_and_kind >> 1,
            time_ms: self.time_ms,
        }
    }

    fn write(self, out: &mut Vec<u8>) {
        for word in [self.request[0], self.request[1], self.time_ms as u64] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.video.to_le_bytes());
        out.extend_from_slice(&self.tuple_and_kind.to_le_bytes());
    }

    fn read(bytes: &[u8; 32]) -> Self {
        let word = |at: usize| {
            u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes are eight"))
        };
        let last = word(24);
        Packed {
            request: [word(0), word(8)],
            time_ms: word(16) as i64,
            video: last as u32,
            tuple_and_kind: (last >> 32) as u32,
        }
    }
}

/// All buckets.
pub(super) struct Buckets {
    buckets: Vec<Mutex<Bucket>>,
    limit_bytes: u64,
    in_memory_bytes: AtomicU64,
    /// The next bucket that nobody has taken.
    next: AtomicU64,
}

#[derive(Default)]
struct Bucket {
    pages: Vec<Box<[Packed]>>,
    /// What did not fit into memory. The file has no name: it goes with the process.
    spilled: Option<File>,
}

impl Buckets {
    pub(super) fn new(count: usize, limit_bytes: u64) -> Self {
        debug_assert!(count.is_power_of_two());
        Buckets {
            buckets: (0..count).map(|_| Mutex::default()).collect(),
            limit_bytes,
            in_memory_bytes: AtomicU64::new(0),
            next: AtomicU64::new(0),
        }
    }

    /// A writer for one thread.
    pub(super) fn writer(&self) -> Writer<'_> {
        Writer { buckets: self, open: self.buckets.iter().map(|_| Vec::new()).collect() }
    }

    /// Takes the next bucket and calls `each` with its events, in no particular order; `false`
    /// when all have been taken.
    pub(super) fn take(&self, mut each: impl FnMut(&Event)) -> std::io::Result<bool> {
        let number = self.next.fetch_add(1, Ordering::Relaxed) as usize;
        let Some(bucket) = self.buckets.get(number) else { return Ok(false) };
        let bucket = std::mem::take(&mut *bucket.lock().unwrap_or_else(|e| e.into_inner()));
        for page in bucket.pages {
            page.iter().for_each(|packed| each(&packed.event()));
        }
        if let Some(mut file) = bucket.spilled {
            file.seek(SeekFrom::Start(0))?;
            let mut bytes = vec![0; 32 * PAGE];
            loop {
                let read = read_full(&mut file, &mut bytes)?;
                if read == 0 {
                    break;
                }
                for packed in bytes[..read].as_chunks::<32>().0 {
                    each(&Packed::read(packed).event());
                }
            }
        }
        Ok(true)
    }

    fn add_page(&self, number: usize, page: Vec<Packed>) -> std::io::Result<()> {
        let bytes = (page.len() * size_of::<Packed>()) as u64;
        let held = self.in_memory_bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut bucket = self.buckets[number].lock().unwrap_or_else(|e| e.into_inner());
        if held + bytes <= self.limit_bytes {
            bucket.pages.push(page.into_boxed_slice());
            return Ok(());
        }
        self.in_memory_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let mut out = Vec::with_capacity(page.len() * 32);
        page.into_iter().for_each(|packed| packed.write(&mut out));
        let file = match &mut bucket.spilled {
            Some(file) => file,
            none => none.insert(tempfile::tempfile()?),
        };
        file.write_all(&out)
    }
}

/// Reads until the buffer is full or the file ends.
fn read_full(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// One thread's open pages.
pub(super) struct Writer<'b> {
    buckets: &'b Buckets,
    open: Vec<Vec<Packed>>,
}

impl Writer<'_> {
    #[inline]
    pub(super) fn push(&mut self, event: &Event) -> std::io::Result<()> {
        // UUIDs have random bits everywhere but in their version and variant.
        let number = (event.request.0 as usize) & (self.open.len() - 1);
        let page = &mut self.open[number];
        if page.capacity() == 0 {
            page.reserve_exact(PAGE);
        }
        page.push(Packed::of(event));
        if page.len() == PAGE {
            let page = std::mem::take(page);
            self.buckets.add_page(number, page)?;
        }
        Ok(())
    }

    /// Hands over the pages that are not full.
    pub(super) fn finish(self) -> std::io::Result<()> {
        for (number, page) in self.open.into_iter().enumerate() {
            if !page.is_empty() {
                self.buckets.add_page(number, page)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_comes_back_once_from_memory_and_from_files() {
        for limit in [0, 100_000, u64::MAX] {
            let buckets = Buckets::new(16, limit);
            let mut writer = buckets.writer();
            let event = |n: u32| Event {
                kind: if n.is_multiple_of(3) { Kind::Play } else { Kind::Impression },
                request: RequestKey(u128::from(n) << 90 | u128::from(n)),
                video: n,
                tuple: n / 2,
                time_ms: i64::from(n) << 20,
            };
            for n in 0..50_000 {
                writer.push(&event(n)).expect("there is room");
            }
            writer.finish().expect("there is room");
            let mut seen = vec![0; 50_000];
            while buckets
                .take(|e| {
                    assert_eq!(format!("{e:?}"), format!("{:?}", event(e.video)));
                    seen[e.video as usize] += 1;
                })
                .expect("it reads")
            {}
            assert!(seen.iter().all(|times| *times == 1), "limit {limit}");
        }
    }
}
