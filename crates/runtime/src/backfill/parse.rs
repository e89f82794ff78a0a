//! The first half, from files: lines and rows become events.

use super::BackfillError;
use super::dead::DeadLetters;
use super::intake::Intake;
use crate::plan::Plan;
use marquee_pipeline::prepare::DeadReason;
use marquee_sources::files::{Chunk, FileSet, RowGroup, Rows};
use std::sync::Mutex;

/// A line that holds a list may have as many bad events as elements, and each letter holds the
/// whole line: these are enough.
const LETTERS_A_LINE: usize = 4;

/// One thread's work.
pub(crate) struct Parser<'a, I> {
    plan: &'a Plan,
    files: &'a FileSet,
    dead: &'a Mutex<DeadLetters>,
    pub(crate) intake: I,
    /// The last line that was bad, and how many letters it has.
    last_bad: (usize, u64, usize),
}

impl<'a, I: Intake> Parser<'a, I> {
    pub(crate) fn new(
        plan: &'a Plan,
        files: &'a FileSet,
        dead: &'a Mutex<DeadLetters>,
        intake: I,
    ) -> Self {
        Parser { plan, files, dead, intake, last_bad: (usize::MAX, 0, 0) }
    }

    pub(crate) fn run(
        &mut self,
        thread: usize,
        progress: &(dyn Fn(u64, Option<u64>) + Sync),
    ) -> Result<(), BackfillError> {
        let mut chunk = Chunk::default();
        while self.files.next_chunk(thread, &mut chunk)? {
            let (read, total) = self.files.progress();
            progress(read, total);
            self.chunk(&mut chunk)?;
            if let Some(error) = self.intake.failed() {
                return Err(BackfillError::Spill(error));
            }
        }
        self.intake.finish().map_err(BackfillError::Spill)
    }

    fn chunk(&mut self, chunk: &mut Chunk) -> Result<(), BackfillError> {
        let (input, first) = (chunk.input, chunk.first_line);
        let Some(mut group) = chunk.rows.take() else {
            self.lines(input, first, chunk.bytes());
            return Ok(());
        };
        while let Some(rows) = group.next_rows()? {
            self.rows(input, &mut group, &rows)?;
        }
        Ok(())
    }

    fn lines(&mut self, input: usize, first: u64, lines: &[u8]) {
        let (source, kind) = self.files.input(input);
        let plan: &'a Plan = self.plan;
        let stream = plan.stream(kind);
        stream.decoder.decode_lines(lines, first, |line, record, event| {
            let event = event.map(|values| values.as_slice());
            if let Err(reason) = self.intake.take(stream, None, event) {
                self.dead(input, source, line, &reason, record);
            }
        });
    }

    fn rows(
        &mut self,
        input: usize,
        group: &mut RowGroup,
        rows: &Rows,
    ) -> Result<(), BackfillError> {
        let (source, kind) = self.files.input(input);
        let plan: &'a Plan = self.plan;
        let stream = plan.stream(kind);
        let mut record = Vec::new();
        if stream.decoder.columns().is_none() {
            for row in 0..rows.len() {
                group.write_record(rows, row, &mut record)?;
                record.push(b'\n');
            }
            self.lines(input, rows.first, &record);
            return Ok(());
        }
        let mut bad = Vec::new();
        let columns = stream.decoder.find_columns(&rows.columns);
        self.intake.turn_to(&columns);
        stream.decoder.decode_rows(&columns, |row, event| {
            if let Err(reason) = self.intake.take(stream, Some(row), event) {
                bad.push((row, reason));
            }
        });
        for (row, reason) in bad {
            record.clear();
            group.write_record(rows, row, &mut record)?;
            self.dead(input, source, rows.first + row as u64, &reason, &record);
        }
        Ok(())
    }

    #[cold]
    fn dead(&mut self, input: usize, source: &str, line: u64, reason: &DeadReason, record: &[u8]) {
        self.intake.summary().dead += 1;
        let letters = match self.last_bad {
            (i, l, letters) if (i, l) == (input, line) => letters + 1,
            _ => 1,
        };
        self.last_bad = (input, line, letters);
        if letters > LETTERS_A_LINE {
            return;
        }
        let mut dead = self.dead.lock().unwrap_or_else(|e| e.into_inner());
        dead.take(source, line, &reason.to_string(), record);
    }
}
