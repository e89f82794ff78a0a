//! Gaps: what is known to be missing, so that a cell that may lack members says so.
//!
//! A gap is written before anything is counted after it, and is never taken back: what fills it is
//! a repair, which comes later.

use serde::{Deserialize, Serialize};

/// Records that a lane did not count, and the cells that may lack members because of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Gap {
    /// The lane.
    pub lane: u32,
    /// Name of the topic.
    pub topic: String,
    /// First offset that is missing.
    pub from_offset: u64,
    /// First offset after it that is there.
    pub to_offset: u64,
    /// Start of the first cell that may lack members, milliseconds since 1970 UTC.
    pub from_ms: i64,
    /// End of the last one.
    pub to_ms: i64,
    /// Why, in a word that stays: `trimmed` (the log has deleted them) or `elsewhere` (another
    /// member of the group has counted them, into its own store).
    pub reason: String,
}

impl Gap {
    /// Adds gaps to a list that holds each once.
    pub fn add(list: &mut Vec<Gap>, gaps: impl IntoIterator<Item = Gap>) {
        for gap in gaps {
            if !list.contains(&gap) {
                list.push(gap);
            }
        }
    }

    /// One gap that covers all of some, where they are too many to be told one by one; `None` of
    /// none. It takes its other words from the first.
    pub fn covering(gaps: &[Gap]) -> Option<Gap> {
        let mut all = gaps.first()?.clone();
        for gap in gaps {
            all.from_ms = all.from_ms.min(gap.from_ms);
            all.to_ms = all.to_ms.max(gap.to_ms);
        }
        Some(all)
    }

    /// Whether a cell of this epoch may lack members.
    pub fn touches(&self, epoch_start_ms: i64, epoch_ms: i64) -> bool {
        epoch_start_ms < self.to_ms && epoch_start_ms.saturating_add(epoch_ms) > self.from_ms
    }
}
