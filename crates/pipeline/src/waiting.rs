//! Events that were prepared, and wait to be applied together.
//!
//! An event needs a place in each of several tables, and its processor would wait for memory at each
//! of them. So videos, and then the cells of these, are looked at for all events of a stretch, one
//! right after the other: these looks do not depend on each other, so that a processor has several
//! of them under way at a time. (Requests are not: the events of one mostly come together, and its
//! entry stays in the cache from the first to the last.)

use crate::join::Event;
use marquee_model::{Kind, RequestKey};

/// An event whose video has no number yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) request: RequestKey,
    pub(crate) time_ms: i64,
    /// The last epoch in which its video may be counted.
    pub(crate) used_until: i64,
    pub(crate) tuple: u32,
    /// Whose it is, for whoever takes the verdict.
    pub(crate) tag: u32,
    pub(crate) kind: Kind,
    /// Whether the key is the request id itself; otherwise its text is kept.
    pub(crate) is_uuid: bool,
}

/// Those of one stretch.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// With the ends of their texts: the video's, then the request id's.
    entries: Vec<(Entry, [u32; 2])>,
    texts: Vec<u8>,
    /// The numbers of their videos, once they have some.
    videos: Vec<u32>,
}

impl Waiting {
    #[inline]
    pub(crate) fn push(&mut self, entry: Entry, video: &str, request_id: &str) {
        self.texts.extend_from_slice(video.as_bytes());
        let end_of_video = self.texts.len() as u32;
        if !entry.is_uuid {
            self.texts.extend_from_slice(request_id.as_bytes());
        }
        self.entries.push((entry, [end_of_video, self.texts.len() as u32]));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Gives every video its number.
    #[inline]
    pub(crate) fn number(&mut self, mut number: impl FnMut(&[u8], i64) -> u32) {
        let mut start = 0;
        for (Entry { used_until, .. }, [end_of_video, end]) in &self.entries {
            let video = &self.texts[start..*end_of_video as usize];
            self.videos.push(number(video, *used_until));
            start = *end as usize;
        }
    }

    /// The time and the video of every event that has a number.
    #[inline]
    pub(crate) fn places(&self) -> impl Iterator<Item = (i64, u32)> {
        self.entries.iter().zip(&self.videos).map(|((entry, _), video)| (entry.time_ms, *video))
    }

    /// Every event that has a number, with its entry and the text of its request id, if that is no
    /// UUID.
    #[inline]
    pub(crate) fn events(&self) -> impl Iterator<Item = (Event, &Entry, &[u8])> {
        self.entries.iter().zip(&self.videos).map(|((entry, [end_of_video, end]), video)| {
            let Entry { request, time_ms, tuple, kind, .. } = *entry;
            let text = &self.texts[*end_of_video as usize..*end as usize];
            (Event { kind, request, video: *video, tuple, time_ms }, entry, text)
        })
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.texts.clear();
        self.videos.clear();
    }
}
