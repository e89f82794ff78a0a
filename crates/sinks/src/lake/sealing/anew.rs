//! Stretches that somebody has found wrong in the lake are written anew, whatever their fingerprints
//! say: from the store, in the union with those of their files that are what this program wrote.
//!
//! What else their files claim is not believed and goes with them: a disk, a person or another program
//! has made it, and nobody has counted it. The order is that of all sealing: first the manifest, then
//! the store.

use super::super::layout::day_of;
use super::super::manifest::{Base, Proposal, Wanted};
use super::super::reading::Reading;
use super::{LakeError, Sealing};
use crate::Gap;
use std::collections::BTreeSet;

/// How often a stretch is begun anew because somebody else was faster.
const TRIES: u32 = 20;

impl Sealing {
    /// Writes stretches of lanes anew, by their starts. What is not closed is left out.
    ///
    /// # Errors
    /// The lake or the store failed; what was written until then is whole.
    pub fn write_anew(
        &mut self,
        wanted: &BTreeSet<(i64, u32)>,
        now_ms: i64,
    ) -> Result<(), LakeError> {
        for (stretch, lane) in wanted {
            let frontier = self.store.lane_state(*lane)?.map_or(0, |state| state.frontier);
            let layout = self.manifests()?.layout().clone();
            if frontier.saturating_mul(layout.longest_ms) < stretch + layout.stretch_ms {
                continue;
            }
            let mut tries = 0;
            while !self.anew(*stretch, *lane, now_ms)? {
                tries += 1;
                if tries == TRIES {
                    return Err(LakeError::Crowded { day: day_of(*stretch), tries });
                }
            }
        }
        Ok(())
    }

    /// `false`: somebody was faster.
    fn anew(&mut self, stretch: i64, lane: u32, now_ms: i64) -> Result<bool, LakeError> {
        let (day, manifests) = (day_of(stretch), self.manifests()?);
        let manifest = manifests.newest(&day)?;
        let gaps = Gap::unrepaired(self.store.gaps()?, &self.store.repairs()?);
        let base = manifest.base(stretch, lane);
        let mut reading = Reading::of(manifests.clone(), self.store.generation().secret, 0);
        let as_written = base.entry.as_ref().map(|entry| reading.as_written(entry)).transpose();
        let believed = match as_written {
            Ok(entry) => Base { entry, open: base.open.clone() },
            Err(LakeError::Gone { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        let writing = self.writing(&manifests, stretch, lane, &gaps);
        let entry = match writing.entry(manifest.version + 1, &believed) {
            Ok(entry) => entry,
            Err(LakeError::Gone { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        let wanted = Wanted::Closed(entry);
        self.list(&day, &[Proposal { wanted, base, sweeps: manifest.sweeps }], now_ms)
    }
}
