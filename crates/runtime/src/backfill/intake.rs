//! Where decoded events go, one thread's part of it: the seam between those who read (lines, rows, a
//! log) and those who collect (for a count, for training examples).

use super::Summary;
use crate::plan::StreamPlan;
use marquee_expr::Value;
use marquee_pipeline::prepare::DeadReason;
use marquee_sources::json::Columns;

/// Takes events as they are decoded.
pub(crate) trait Intake {
    /// The events that follow come from a record of a log, at this offset.
    #[inline(always)]
    fn at(&mut self, _topic: usize, _lane: u32, _offset: u64) {}

    /// The rows that follow have these columns.
    fn turn_to(&mut self, _columns: &Columns) {}

    /// Takes one event, good or bad, and the place of its row, if it is one. `Err`: it is a dead
    /// letter, which the caller counts.
    fn take(
        &mut self,
        stream: &StreamPlan,
        row: Option<usize>,
        event: Result<&[Value<'_>], DeadReason>,
    ) -> Result<(), DeadReason>;

    /// What was read.
    fn summary(&mut self) -> &mut Summary;

    /// The first error of a temporary file.
    fn failed(&mut self) -> Option<std::io::Error>;

    /// Hands over what it still holds. Nothing is taken after that.
    fn finish(&mut self) -> std::io::Result<()>;
}
