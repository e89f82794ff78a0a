//! Reads a snapshot, and believes nothing in it that it has not checked: hostile bytes end in an
//! error, never in a panic or in more memory than they are long.

use super::frame::{Content, FrameReader};
use super::{
    A_RECORD, CELLS, END, FACTS, HEADER, Header, PLAYS, PREAMBLE, SLICES, SnapshotError, TUPLES,
    VIDEOS, WATERMARK, check_preamble, header,
};
use crate::aggregate::CellPlace;
use crate::join::{SavedFact, SavedPlay};
use crate::lane::{LanePipeline, LaneSettings, Resume};
use marquee_model::{CellCounts, MAX_ID_BYTES};

/// Times beyond it are no dates; below it nothing overflows.
const MAX_MS: i64 = i64::MAX / 8;
/// A video or a tuple must leave room for flags beside it.
const MAX_SYMBOLS: usize = 1 << 30;

/// Builds a lane from the bytes of a snapshot. The lane then is like one that is being rebuilt:
/// it is fed what came between the snapshot and the commit, and then [`LanePipeline::rebuilt`].
pub struct Loader {
    settings: LaneSettings,
    resume: Resume,
    frames: FrameReader,
    /// Length of the snapshot: no list in it is longer.
    bytes: u64,
    /// Whether the bytes before the first frame were read.
    has_begun: bool,
    /// Kind of the last frame.
    kind: u8,
    header: Option<Header>,
    lane: Option<LanePipeline>,
    /// Newest epochs that use each video, slice and tuple.
    used: [Vec<i64>; 3],
    /// Facts, plays and cells that were read.
    held: [u64; 3],
    scratch: Vec<SavedFact>,
}

impl Loader {
    /// For a snapshot of so many bytes. `resume` is the commit from which the lane goes on: at or
    /// after the one at which the snapshot was taken. Epochs that have closed since are dropped.
    pub fn new(settings: LaneSettings, resume: Resume, bytes: u64) -> Self {
        Loader {
            settings,
            resume,
            frames: FrameReader::new(PREAMBLE),
            bytes,
            has_begun: false,
            kind: 0,
            header: None,
            lane: None,
            used: Default::default(),
            held: [0; 3],
            scratch: Vec::new(),
        }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.frames.feed(bytes);
        if !self.has_begun {
            let Some(preamble) = self.frames.preamble() else { return Ok(()) };
            check_preamble(preamble)?;
            self.has_begun = true;
        }
        // The frame is taken out for the time that its content is read: both are in `self`.
        let mut frames = std::mem::replace(&mut self.frames, FrameReader::new(PREAMBLE));
        let result = self.frames_of(&mut frames);
        self.frames = frames;
        result
    }

    fn frames_of(&mut self, frames: &mut FrameReader) -> Result<(), SnapshotError> {
        loop {
            let before = frames.read();
            let Some((kind, content)) = frames.next()? else { return Ok(()) };
            if self.kind == END {
                return Err(DAMAGED("something follows its end"));
            }
            self.frame(kind, &mut Content(content), before)?;
        }
    }

    /// The lane as far as it was read, so that its state can be kept within its memory.
    pub fn lane_so_far(&mut self) -> Option<&mut LanePipeline> {
        self.lane.as_mut()
    }

    /// The lane, once all bytes were fed.
    pub fn finish(self) -> Result<LanePipeline, SnapshotError> {
        let mut lane = match self.lane {
            Some(lane) if self.kind == END && !self.frames.has_more() => lane,
            _ => return Err(DAMAGED("it is cut off")),
        };
        lane.sweep_symbols();
        Ok(lane)
    }

    fn frame(
        &mut self,
        kind: u8,
        content: &mut Content<'_>,
        before: u64,
    ) -> Result<(), SnapshotError> {
        let repeats = ![HEADER, WATERMARK, END].contains(&kind);
        let is_next = kind > self.kind || (kind == self.kind && repeats);
        let has_watermark = self.kind >= WATERMARK || kind <= WATERMARK;
        if !is_next || (self.kind == 0) != (kind == HEADER) || !has_watermark {
            return Err(DAMAGED("its frames are out of order"));
        }
        self.kind = kind;
        match kind {
            HEADER => self.header(content.0),
            VIDEOS => self.texts(content, 0),
            SLICES => self.texts(content, 1),
            TUPLES => self.tuples(content),
            WATERMARK => self.watermark(content),
            FACTS => self.facts(content),
            PLAYS => self.plays(content),
            CELLS => self.cells(content),
            END => self.end(content, before),
            _ => Err(DAMAGED("it has a frame of an unknown kind")),
        }
    }

    fn header(&mut self, content: &[u8]) -> Result<(), SnapshotError> {
        let header = header(content)?;
        if !header.has_secret(self.settings.secret) {
            return Err(SnapshotError::Misfit("it is of another generation"));
        }
        let (frontier, settings) = (self.resume.frontier, &self.settings.settings);
        let is_sound = (0..=MAX_MS / settings.longest_ms()).contains(&header.frontier)
            && header.kept_from <= header.frontier
            && header.about.next_offsets.len() == self.settings.topics;
        if !is_sound {
            return Err(DAMAGED("its header makes no sense"));
        }
        if header.frontier > frontier {
            return Err(SnapshotError::Misfit("it is ahead of the commit"));
        }
        // Facts of epochs that have closed since, but may match, are needed while the lane catches
        // up: as in every rebuild (invariant WHOLE).
        let kept_from = settings.oldest_needed_by(frontier).max(header.kept_from);
        let lane = LanePipeline::to_be_loaded(self.settings.clone(), self.resume, kept_from);
        self.lane = Some(lane);
        self.header = Some(header);
        Ok(())
    }

    fn epoch(&self, content: &mut Content<'_>) -> Result<i64, SnapshotError> {
        let frontier = self.header.as_ref().map_or(0, |header| header.frontier);
        Ok(content.signed()?.wrapping_add(frontier))
    }

    /// An epoch that has facts or cells.
    fn held_epoch(&self, content: &mut Content<'_>) -> Result<i64, SnapshotError> {
        let epoch = self.epoch(content)?;
        let last = MAX_MS / self.settings.settings.longest_ms();
        (0..=last).contains(&epoch).then_some(epoch).ok_or(DAMAGED("an epoch is out of range"))
    }

    fn texts(&mut self, content: &mut Content<'_>, of: usize) -> Result<(), SnapshotError> {
        while !content.is_empty() {
            let text = content.text()?;
            let epoch = self.epoch(content)?;
            let is_sound = std::str::from_utf8(text).is_ok()
                && (of != 0 || (1..=MAX_ID_BYTES).contains(&text.len()));
            let symbols = lane(&mut self.lane)?.parts_mut().symbols;
            let texts = if of == 0 { &mut symbols.videos } else { &mut symbols.slices };
            if !is_sound || epoch == i64::MIN || self.used[of].len() >= MAX_SYMBOLS {
                return Err(DAMAGED("a text is none"));
            }
            add(&mut self.used[of], texts.intern(text, epoch), epoch)?;
        }
        Ok(())
    }

    fn tuples(&mut self, content: &mut Content<'_>) -> Result<(), SnapshotError> {
        let mut slices = Vec::new();
        while !content.is_empty() {
            let values = content.text()?;
            let epoch = self.epoch(content)?;
            slices.clear();
            for _ in 0..self.settings.settings.groupings {
                let slice = content.below(self.used[1].len() as u64)? as u32;
                slices.push(self.used_at(1, slice, epoch)?);
            }
            if epoch == i64::MIN || self.used[2].len() >= MAX_SYMBOLS {
                return Err(DAMAGED("a tuple is none"));
            }
            let symbols = lane(&mut self.lane)?.parts_mut().symbols;
            add(&mut self.used[2], symbols.load_tuple(values, epoch, &slices), epoch)?;
        }
        Ok(())
    }

    /// A symbol, if it is known to be in use until an epoch has gone.
    #[inline]
    fn used_at(&self, of: usize, number: u32, epoch: i64) -> Result<u32, SnapshotError> {
        let is_used = self.used[of].get(number as usize).is_some_and(|used| *used >= epoch);
        is_used.then_some(number).ok_or(DAMAGED("a symbol is not in use"))
    }

    fn watermark(&mut self, content: &mut Content<'_>) -> Result<(), SnapshotError> {
        let topics = self.settings.topics;
        let watermark = lane(&mut self.lane)?.parts_mut().watermark;
        watermark.load_reached_ms(content.option()?.map(sound_ms).transpose()?);
        for topic in 0..topics {
            let idle_floor_ms = content.option()?.map(sound_ms).transpose()?;
            let mut largest = Vec::new();
            for _ in 0..content.number()? {
                largest.push((sound_ms(content.signed()?)?, content.request()?));
            }
            watermark.load_topic(topic, largest.into_iter(), idle_floor_ms);
        }
        done(content)
    }

    fn facts(&mut self, content: &mut Content<'_>) -> Result<(), SnapshotError> {
        let epoch = self.held_epoch(content)?;
        let requests = content.number()?.min(self.bytes / 17) as usize;
        let kept = epoch >= lane(&mut self.lane)?.kept_from();
        if kept {
            let join = lane(&mut self.lane)?.parts_mut().join;
            join.reserve(epoch, requests);
        }
        while !content.is_empty() {
            let request = content.request()?;
            self.scratch.clear();
            let mut at_ms = 0;
            for _ in 0..content.below(A_RECORD as u64 + 1)? {
                let fact = self.fact(content, epoch, at_ms)?;
                at_ms = i64::from(fact.offset_ms);
                self.scratch.push(fact);
            }
            self.held[0] += self.scratch.len() as u64;
            if kept {
                let join = lane(&mut self.lane)?.parts_mut().join;
                join.load_facts(epoch, request, &self.scratch);
            }
        }
        Ok(())
    }

    #[inline]
    fn fact(
        &self,
        content: &mut Content<'_>,
        epoch: i64,
        before_ms: i64,
    ) -> Result<SavedFact, SnapshotError> {
        let video = content.below(self.used[0].len() as u64)? as u32;
        let offset_ms = before_ms.wrapping_add(content.signed()?);
        let tag = content.below((self.used[2].len() as u64) << 2)?;
        let (is_impression, is_joined) = (tag & 2 != 0, tag & 1 != 0);
        let longest_ms = self.settings.settings.longest_ms();
        if !(0..longest_ms).contains(&offset_ms) || (is_joined && !is_impression) {
            return Err(DAMAGED("a fact is out of range"));
        }
        Ok(SavedFact {
            video: self.used_at(0, video, epoch)?,
            offset_ms: offset_ms as u32,
            tuple: self.used_at(2, (tag >> 2) as u32, epoch)?,
            is_impression,
            is_joined,
        })
    }

    fn plays(&mut self, content: &mut Content<'_>) -> Result<(), SnapshotError> {
        let kept_from = lane(&mut self.lane)?.kept_from();
        while !content.is_empty() {
            let request = content.request()?;
            let mut time_ms = 0_i64;
            for _ in 0..content.below(A_RECORD as u64 + 1)? {
                time_ms = sound_ms(time_ms.wrapping_add(content.signed()?))?;
                let epoch = self.settings.settings.epoch_of(time_ms);
                let video = content.below(self.used[0].len() as u64)? as u32;
                let tag = content.below((self.used[2].len() as u64) << 1)?;
                let play = SavedPlay {
                    time_ms,
                    video: self.used_at(0, video, epoch)?,
                    tuple: self.used_at(2, (tag >> 1) as u32, epoch)?,
                    is_joined: tag & 1 != 0,
                };
                self.held[1] += 1;
                if epoch >= kept_from {
                    lane(&mut self.lane)?.parts_mut().join.load_play(request, &play);
                }
            }
        }
        Ok(())
    }

    fn cells(&mut self, content: &mut Content<'_>) -> Result<(), SnapshotError> {
        let epoch = self.held_epoch(content)?;
        let is_open = epoch >= self.resume.frontier;
        while !content.is_empty() {
            let video = content.below(self.used[0].len() as u64)? as u32;
            let slice = content.below(self.used[1].len() as u64)? as u32;
            let settings = &self.settings.settings;
            let length = content.below(settings.epochs_ms.len() as u64)?;
            let start_ms = content.below(settings.longest_ms() as u64)?;
            if start_ms % settings.epochs_ms[length as usize] as u64 != 0 {
                return Err(DAMAGED("a cell is none"));
            }
            let place = CellPlace {
                epoch,
                video: self.used_at(0, video, epoch)?,
                slice: self.used_at(1, slice, epoch)?,
                length: length as u8,
                start_offset_ms: start_ms as u32,
            };
            let counts = CellCounts { impressions: content.number()?, plays: content.number()? };
            self.held[2] += 1;
            let aggregate = lane(&mut self.lane)?.parts_mut().aggregate;
            if is_open && !aggregate.load(&place, counts) {
                return Err(DAMAGED("a cell is there twice, or too large"));
            }
        }
        Ok(())
    }

    fn end(&mut self, content: &mut Content<'_>, before: u64) -> Result<(), SnapshotError> {
        let mut is_right = content.number()? == before;
        for held in self.held {
            is_right &= content.number()? == held;
        }
        is_right.then_some(()).ok_or(DAMAGED("it does not hold what it says"))?;
        done(content)
    }
}

const DAMAGED: fn(&'static str) -> SnapshotError = SnapshotError::Damaged;

fn lane(lane: &mut Option<LanePipeline>) -> Result<&mut LanePipeline, SnapshotError> {
    lane.as_mut().ok_or(DAMAGED("it does not begin with its header"))
}

/// Notes a symbol, which must be new.
fn add(used: &mut Vec<i64>, number: u32, epoch: i64) -> Result<(), SnapshotError> {
    if number as usize != used.len() {
        return Err(DAMAGED("a symbol is there twice"));
    }
    used.push(epoch);
    Ok(())
}

fn sound_ms(ms: i64) -> Result<i64, SnapshotError> {
    (-MAX_MS..=MAX_MS).contains(&ms).then_some(ms).ok_or(DAMAGED("a time is out of range"))
}

fn done(content: &Content<'_>) -> Result<(), SnapshotError> {
    content.is_empty().then_some(()).ok_or(DAMAGED("a record is too long"))
}
