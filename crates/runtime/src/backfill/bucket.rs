//! Buckets of events, scattered by request: in memory up to a limit, then in temporary files.

use marquee_model::{Kind, RequestKey};
use marquee_pipeline::join::Event;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Events in a page.
const PAGE: usize = 256;

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
    #[inline]
    fn of(event: &Event) -> Self {
        Packed {
            request: words_of(event.request),
            time_ms: event.time_ms,
            video: event.video,
            tuple_and_kind: event.tuple << 1 | u32::from(event.kind == Kind::Play),
        }
    }

    #[inline]
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

#[inline]
fn words_of(request: RequestKey) -> [u64; 2] {
    [(request.0 >> 64) as u64, request.0 as u64]
}

/// An event in 24 bytes: its request, and in one word 32 bits of time from half a range before a
/// base on, 20 of video, 11 of tuple, and 1 for a play. Nearly all events fit: a million videos,
/// and 24 days around the first event of a page.
type Near = [u64; 3];

const VIDEO_BITS: u32 = 20;
const TUPLE_BITS: u32 = 11;
const HALF_RANGE_MS: i64 = 1 << 31;

#[inline]
fn near(event: &Event, base_ms: i64) -> Option<Near> {
    let time = u32::try_from(event.time_ms - base_ms + HALF_RANGE_MS).ok()?;
    if event.video >> VIDEO_BITS != 0 || event.tuple >> TUPLE_BITS != 0 {
        return None;
    }
    let is_play = u64::from(event.kind == Kind::Play);
    let tuple_and_kind = u64::from(event.tuple) << 1 | is_play;
    let [high, low] = words_of(event.request);
    let video_and_all = u64::from(event.video) << (TUPLE_BITS + 1) | tuple_and_kind;
    Some([high, low, u64::from(time) << 32 | video_and_all])
}

#[inline]
fn event_of([high, low, word]: Near, base_ms: i64) -> Event {
    let video_and_all = word as u32;
    Event {
        kind: if word & 1 == 1 { Kind::Play } else { Kind::Impression },
        request: RequestKey(u128::from(high) << 64 | u128::from(low)),
        video: video_and_all >> (TUPLE_BITS + 1),
        tuple: (video_and_all >> 1) & ((1 << TUPLE_BITS) - 1),
        time_ms: (word >> 32) as i64 - HALF_RANGE_MS + base_ms,
    }
}

/// Some events of a bucket.
enum Page {
    Near { base_ms: i64, events: Vec<Near> },
    Far(Vec<Packed>),
}

impl Page {
    fn bytes(&self) -> u64 {
        let bytes = match self {
            Page::Near { events, .. } => events.len() * size_of::<Near>(),
            Page::Far(events) => events.len() * size_of::<Packed>(),
        };
        bytes as u64
    }

    #[inline]
    fn for_each(&self, mut each: impl FnMut(&Event)) {
        match self {
            Page::Near { base_ms, events } => {
                events.iter().for_each(|near| each(&event_of(*near, *base_ms)));
            }
            Page::Far(events) => events.iter().for_each(|packed| each(&packed.event())),
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
    pages: Vec<Page>,
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
        Writer {
            buckets: self,
            near: self.buckets.iter().map(|_| OpenPage::default()).collect(),
            far: self.buckets.iter().map(|_| Vec::new()).collect(),
        }
    }

    /// Takes the next bucket and calls `each` with its events, in no particular order; `false`
    /// when all have been taken.
    pub(super) fn take(&self, mut each: impl FnMut(&Event)) -> std::io::Result<bool> {
        let number = self.next.fetch_add(1, Ordering::Relaxed) as usize;
        let Some(bucket) = self.buckets.get(number) else { return Ok(false) };
        let bucket = std::mem::take(&mut *bucket.lock().unwrap_or_else(|e| e.into_inner()));
        for page in bucket.pages {
            page.for_each(&mut each);
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

    #[cold]
    fn add_page(&self, number: usize, page: Page) -> std::io::Result<()> {
        let bytes = page.bytes();
        let held = self.in_memory_bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut bucket = self.buckets[number].lock().unwrap_or_else(|e| e.into_inner());
        if held + bytes <= self.limit_bytes {
            bucket.pages.push(page);
            return Ok(());
        }
        self.in_memory_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let mut out = Vec::with_capacity(PAGE * 32);
        page.for_each(|event| Packed::of(event).write(&mut out));
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
    near: Vec<OpenPage>,
    far: Vec<Vec<Packed>>,
}

#[derive(Default)]
struct OpenPage {
    events: Vec<Near>,
    /// Time of its first event.
    base_ms: i64,
}

impl Writer<'_> {
    #[inline]
    pub(super) fn push(&mut self, event: &Event) -> std::io::Result<()> {
        // UUIDs have random bits everywhere but in their version and variant.
        let number = (event.request.0 as usize) & (self.near.len() - 1);
        let page = &mut self.near[number];
        if page.events.capacity() == 0 {
            page.events.reserve_exact(PAGE);
            page.base_ms = event.time_ms;
        }
        let Some(near) = near(event, page.base_ms) else { return self.push_far(number, event) };
        page.events.push(near);
        if page.events.len() == PAGE {
            let OpenPage { events, base_ms } = std::mem::take(page);
            self.buckets.add_page(number, Page::Near { base_ms, events })?;
        }
        Ok(())
    }

    #[cold]
    fn push_far(&mut self, number: usize, event: &Event) -> std::io::Result<()> {
        let page = &mut self.far[number];
        if page.capacity() == 0 {
            page.reserve_exact(PAGE);
        }
        page.push(Packed::of(event));
        if page.len() == PAGE {
            let page = std::mem::take(page);
            self.buckets.add_page(number, Page::Far(page))?;
        }
        Ok(())
    }

    /// Hands over the pages that are not full.
    pub(super) fn finish(self) -> std::io::Result<()> {
        for (number, OpenPage { events, base_ms }) in self.near.into_iter().enumerate() {
            if !events.is_empty() {
                self.buckets.add_page(number, Page::Near { base_ms, events })?;
            }
        }
        for (number, page) in self.far.into_iter().enumerate() {
            if !page.is_empty() {
                self.buckets.add_page(number, Page::Far(page))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_into_24_bytes_comes_back_and_what_does_not_is_told() {
        let base_ms = 1_479_686_400_000;
        let event = |video: u32, tuple: u32, after_ms: i64| Event {
            kind: if video.is_multiple_of(2) { Kind::Play } else { Kind::Impression },
            request: RequestKey(u128::MAX - 5),
            video,
            tuple,
            time_ms: base_ms + after_ms,
        };
        let (videos, tuples) = (1 << VIDEO_BITS, 1 << TUPLE_BITS);
        for (video, tuple, after_ms) in
            [(0, 0, 0), (videos - 1, tuples - 1, HALF_RANGE_MS - 1), (7, 8, -HALF_RANGE_MS)]
        {
            let event = event(video, tuple, after_ms);
            let back = event_of(near(&event, base_ms).expect("it fits"), base_ms);
            assert_eq!(format!("{back:?}"), format!("{event:?}"));
        }
        assert!(near(&event(videos, 0, 0), base_ms).is_none());
        assert!(near(&event(0, tuples, 0), base_ms).is_none());
        assert!(near(&event(0, 0, HALF_RANGE_MS), base_ms).is_none());
        assert!(near(&event(0, 0, -HALF_RANGE_MS - 1), base_ms).is_none());
    }

    #[test]
    fn every_event_comes_back_once_from_memory_and_from_files() {
        for limit in [0, 100_000, u64::MAX] {
            let buckets = Buckets::new(16, limit);
            let mut writer = buckets.writer();
            let event = |n: u32| Event {
                kind: if n.is_multiple_of(3) { Kind::Play } else { Kind::Impression },
                request: RequestKey(u128::from(n) << 90 | u128::from(n)),
                video: n,
                // At and over the bounds of what fits into 24 bytes.
                tuple: if n.is_multiple_of(5) { n % 2100 } else { n / 2 },
                time_ms: if n.is_multiple_of(2) { 1 << 40 } else { i64::from(n) << 20 },
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
