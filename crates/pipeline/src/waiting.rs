//! Events that were prepared, and wait to be applied together.
//!
//! An event needs a place in each of several tables, and its processor would wait for memory at each
//! of them. So videos, and then the cells of these, are looked at for all events of a stretch, one
//! right after the other: these looks do not depend on each other, so that a processor has several
//! of them under way at a time. (Requests are not: the events of one mostly come together, and its
//! entry stays in the cache from the first to the last.)

use crate::join::Event;
use marquee_model::{Kind, RequestKey};

/// So many events wait at most, with texts of so many bytes, about.
const MOST: usize = 256;
const MOST_BYTES: usize = 32 << 10;

/// An event that was filtered and transformed. Its video has no number yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) request: RequestKey,
    pub(crate) time_ms: i64,
    /// The last epoch in which its video may be counted.
    pub(crate) used_until: i64,
    pub(crate) tuple: u32,
    /// Number of its record, for whoever takes the verdict.
    pub(crate) record: u32,
    pub(crate) kind: Kind,
    /// Whether the key is the request id itself; otherwise its text is kept.
    pub(crate) is_uuid: bool,
}

/// Those of one stretch.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    /// With the ends of their texts: the video's, then the request id's.
    taken: Vec<(Taken, [u32; 2])>,
    texts: Vec<u8>,
    /// The numbers of their videos, once they have some.
    videos: Vec<u32>,
}

impl Waiting {
    #[inline]
    pub(crate) fn push(&mut self, taken: Taken, video: &str, request_id: &str) {
        self.texts.extend_from_slice(video.as_bytes());
        let end_of_video = self.texts.len() as u32;
        if !taken.is_uuid {
            self.texts.extend_from_slice(request_id.as_bytes());
        }
        self.taken.push((taken, [end_of_video, self.texts.len() as u32]));
    }

    /// Whether more would not fit into the cache. A record may hold a list of any length.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.taken.len() >= MOST || self.texts.len() >= MOST_BYTES
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// Finds the number of every video.
    #[inline]
    pub(crate) fn find_videos(&mut self, mut find: impl FnMut(&[u8], i64) -> u32) {
        let mut start = 0;
        for (Taken { used_until, .. }, [end_of_video, end]) in &self.taken {
            let video = &self.texts[start..*end_of_video as usize];
            self.videos.push(find(video, *used_until));
            start = *end as usize;
        }
    }

    /// The time and the video of every event that has a number.
    #[inline]
    pub(crate) fn places(&self) -> impl Iterator<Item = (i64, u32)> {
        self.taken.iter().zip(&self.videos).map(|((taken, _), video)| (taken.time_ms, *video))
    }

    /// Every event that has a number, with what was taken of it and the text of its request id, if
    /// that is no UUID.
    #[inline]
    pub(crate) fn events(&self) -> impl Iterator<Item = (Event, &Taken, &[u8])> {
        self.taken.iter().zip(&self.videos).map(|((taken, [end_of_video, end]), video)| {
            let Taken { request, time_ms, tuple, kind, .. } = *taken;
            let text = &self.texts[*end_of_video as usize..*end as usize];
            (Event { kind, request, video: *video, tuple, time_ms }, taken, text)
        })
    }

    pub(crate) fn clear(&mut self) {
        self.taken.clear();
        self.texts.clear();
        self.videos.clear();
    }
}
