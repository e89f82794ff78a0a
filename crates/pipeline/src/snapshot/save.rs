//! Writes a snapshot.
//!
//! Symbols get new numbers without holes, so that a reader can judge them by how many there are.

use super::frame::{FrameWriter, put, put_option, put_request, put_signed, put_text};
use super::{
    A_RECORD, About, CELLS, END, FACTS, HEADER, MAGIC, PLAYS, SLICES, TUPLES, VERSION, VIDEOS,
    WATERMARK, header_of,
};
use crate::join::{SavedFact, Unsaved};
use crate::lane::{LanePipeline, Parts};
use crate::symbols::Interner;
use marquee_model::RequestKey;

impl LanePipeline {
    /// Writes a snapshot of the state, in pieces of some hundred kilobytes; an error of `write`
    /// ends it. Only while [`LanePipeline::can_be_saved`], and of a state that is durable as a
    /// whole: `about` says up to which offsets.
    pub fn save<E>(
        &self,
        about: &About,
        write: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), Unsaved<E>> {
        debug_assert!(self.can_be_saved(), "a snapshot holds nothing that is not durable");
        let mut preamble = MAGIC.to_vec();
        preamble.extend_from_slice(&VERSION.to_le_bytes());
        let frames = FrameWriter::new(&preamble, write)?;
        let (frontier, parts) = (self.frontier(), self.parts());
        let mut saving =
            Saving { frames, parts, frontier, numbers: Numbers::default(), held: [0; 3] };
        let header = header_of(about, parts.settings, frontier, parts.join.kept_from());
        saving.header(&serde_json::to_vec(&header).expect("numbers and texts always serialize"))?;
        saving.symbols()?;
        saving.watermark()?;
        saving.facts()?;
        saving.plays()?;
        saving.cells()?;
        Ok(saving.end()?)
    }
}

struct Saving<'a, W> {
    frames: FrameWriter<W>,
    parts: Parts<'a>,
    frontier: i64,
    numbers: Numbers,
    /// Facts, plays and cells written.
    held: [u64; 3],
}

/// The numbers in the snapshot, by those of the lane.
#[derive(Default)]
struct Numbers {
    videos: Vec<u32>,
    slices: Vec<u32>,
    tuples: Vec<u32>,
}

impl<E, W: FnMut(&[u8]) -> Result<(), E>> Saving<'_, W> {
    fn header(&mut self, header: &[u8]) -> Result<(), E> {
        self.frames.open(HEADER);
        self.frames.content().extend_from_slice(header);
        self.frames.close()
    }

    /// Closes the open frame if it is full, and opens another one of its kind.
    fn next(&mut self, kind: u8) -> Result<(), E> {
        if self.frames.is_full() {
            self.frames.close()?;
            self.frames.open(kind);
        }
        Ok(())
    }

    fn symbols(&mut self) -> Result<(), E> {
        let symbols = self.parts.symbols;
        self.numbers.videos = self.texts(VIDEOS, &symbols.videos)?;
        self.numbers.slices = self.texts(SLICES, &symbols.slices)?;
        self.frames.open(TUPLES);
        let mut numbers = Vec::new();
        for (place, (number, values, epoch)) in symbols.tuples_in_use().enumerate() {
            number_as(&mut numbers, number, place);
            let content = self.frames.content();
            put_text(content, values);
            put_signed(content, epoch.wrapping_sub(self.frontier));
            for slice in symbols.slices_of(number) {
                put(content, u64::from(self.numbers.slices[*slice as usize]));
            }
            self.next(TUPLES)?;
        }
        self.numbers.tuples = numbers;
        self.frames.close()
    }

    fn texts(&mut self, kind: u8, texts: &Interner) -> Result<Vec<u32>, E> {
        self.frames.open(kind);
        let mut numbers = Vec::new();
        for (place, (number, text, epoch)) in texts.in_use().enumerate() {
            number_as(&mut numbers, number, place);
            put_text(self.frames.content(), text);
            put_signed(self.frames.content(), epoch.wrapping_sub(self.frontier));
            self.next(kind)?;
        }
        self.frames.close()?;
        Ok(numbers)
    }

    fn watermark(&mut self) -> Result<(), E> {
        let watermark = self.parts.watermark;
        self.frames.open(WATERMARK);
        let content = self.frames.content();
        put_option(content, watermark.saved_reached_ms());
        for (largest, idle_floor_ms) in watermark.saved_topics() {
            put_option(content, idle_floor_ms);
            put(content, largest.len() as u64);
            for (seen_ms, request) in largest {
                put_signed(content, seen_ms);
                put_request(content, request);
            }
        }
        self.frames.close()
    }

    fn facts(&mut self) -> Result<(), Unsaved<E>> {
        let join = self.parts.join;
        for (epoch, requests) in join.saved_epochs() {
            let begin = |saving: &mut Self| {
                saving.frames.open(FACTS);
                put_signed(saving.frames.content(), epoch - saving.frontier);
                put(saving.frames.content(), requests as u64);
            };
            begin(self);
            join.each_request(epoch, |request, facts| {
                for facts in facts.chunks(A_RECORD) {
                    if self.frames.is_full() {
                        self.frames.close()?;
                        begin(self);
                    }
                    self.facts_of(request, facts);
                }
                Ok(())
            })?;
            self.frames.close()?;
        }
        Ok(())
    }

    #[inline]
    fn facts_of(&mut self, request: RequestKey, facts: &[SavedFact]) {
        let content = self.frames.content();
        put_request(content, request);
        put(content, facts.len() as u64);
        let mut before_ms = 0;
        for fact in facts {
            put(content, u64::from(self.numbers.videos[fact.video as usize]));
            put_signed(content, i64::from(fact.offset_ms) - before_ms);
            before_ms = i64::from(fact.offset_ms);
            let tuple = u64::from(self.numbers.tuples[fact.tuple as usize]);
            let flags = u64::from(fact.is_impression) << 1 | u64::from(fact.is_joined);
            put(content, tuple << 2 | flags);
        }
        self.held[0] += facts.len() as u64;
    }

    fn plays(&mut self) -> Result<(), Unsaved<E>> {
        self.frames.open(PLAYS);
        self.parts.join.each_player(|request, plays| {
            for plays in plays.chunks(A_RECORD) {
                self.next(PLAYS)?;
                let content = self.frames.content();
                put_request(content, request);
                put(content, plays.len() as u64);
                let mut before_ms = 0;
                for play in plays {
                    put_signed(content, play.time_ms - before_ms);
                    before_ms = play.time_ms;
                    put(content, u64::from(self.numbers.videos[play.video as usize]));
                    let tuple = u64::from(self.numbers.tuples[play.tuple as usize]);
                    put(content, tuple << 1 | u64::from(play.is_joined));
                }
                self.held[1] += plays.len() as u64;
            }
            Ok(())
        })?;
        Ok(self.frames.close()?)
    }

    fn cells(&mut self) -> Result<(), E> {
        let aggregate = self.parts.aggregate;
        let mut epoch = None;
        for cell in aggregate.open_cells() {
            if epoch != Some(cell.epoch) || self.frames.is_full() {
                if epoch.is_some() {
                    self.frames.close()?;
                }
                epoch = Some(cell.epoch);
                self.frames.open(CELLS);
                put_signed(self.frames.content(), cell.epoch - self.frontier);
            }
            let content = self.frames.content();
            put(content, u64::from(self.numbers.videos[cell.video as usize]));
            put(content, u64::from(self.numbers.slices[cell.slice as usize]));
            content.push(cell.length);
            put(content, u64::from(cell.start_offset_ms));
            put(content, cell.counts.impressions);
            put(content, cell.counts.plays);
            self.held[2] += 1;
        }
        if epoch.is_some() {
            self.frames.close()?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), E> {
        let written = self.frames.written();
        self.frames.open(END);
        put(self.frames.content(), written);
        for held in self.held {
            put(self.frames.content(), held);
        }
        self.frames.close()
    }
}

/// Gives the symbol with a number of the lane its place in the snapshot.
fn number_as(numbers: &mut Vec<u32>, number: u32, place: usize) {
    // Numbers between are free: nothing in the state has them.
    numbers.resize(number as usize, u32::MAX);
    numbers.push(place as u32);
}
