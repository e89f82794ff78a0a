//! Stretches that somebody has found wrong in the lake are written anew, whatever their fingerprints
//! say: from the store, in the union with those of their files that are what this program wrote.
//!
//! What else their files claim is not believed and goes with them: a disk, a person or another program
//! has made it, and nobody has counted it. Unless that is all there is: where the store has let members
//! or cells go, a file that cannot be made again stays as it is. The order is that of all sealing: first
//! the manifest, then the store.

use super::super::layout::day_of;
use super::super::manifest::{Base, Entry, Proposal, Wanted};
use super::super::reading::Reading;
use super::{LakeError, Sealing};
use crate::Gap;
use std::collections::BTreeSet;

/// How often a stretch is begun anew because somebody else was faster.
const TRIES: u32 = 20;

impl Sealing {
    /// Writes stretches of lanes anew, by their starts, and returns those that were left: of some the
    /// store no longer has what the lake has, and some are not closed.
    ///
    /// # Errors
    /// The lake or the store failed; what was written until then is whole.
    pub fn write_anew(
        &mut self,
        wanted: &BTreeSet<(i64, u32)>,
        now_ms: i64,
    ) -> Result<BTreeSet<(i64, u32)>, LakeError> {
        let mut left = BTreeSet::new();
        for (stretch, lane) in wanted {
            let frontier = self.store.lane_state(*lane)?.map_or(0, |state| state.frontier);
            let layout = self.manifests()?.layout().clone();
            if frontier.saturating_mul(layout.longest_ms) < stretch + layout.stretch_ms {
                left.insert((*stretch, *lane));
                continue;
            }
            let mut tries = 0;
            loop {
                match self.anew(*stretch, *lane, now_ms)? {
                    Anew::Written => break,
                    Anew::WouldLose => {
                        left.insert((*stretch, *lane));
                        break;
                    }
                    Anew::Stale => tries += 1,
                }
                if tries == TRIES {
                    return Err(LakeError::Crowded { day: day_of(*stretch), tries });
                }
            }
        }
        Ok(left)
    }

    fn anew(&mut self, stretch: i64, lane: u32, now_ms: i64) -> Result<Anew, LakeError> {
        let (day, manifests) = (day_of(stretch), self.manifests()?);
        let manifest = manifests.newest(&day)?;
        let gaps = Gap::unrepaired(self.store.gaps()?, &self.store.repairs()?);
        let base = manifest.base(stretch, lane);
        let mut reading = Reading::of(manifests.clone(), self.store.generation().secret, 0);
        let as_written = base.entry.as_ref().map(|entry| reading.as_written(entry)).transpose();
        let believed = match as_written {
            Ok(entry) => Base { entry, open: base.open.clone() },
            Err(LakeError::Gone { path }) => {
                self.gone((stretch, lane), &base, path)?;
                return Ok(Anew::Stale);
            }
            Err(error) => return Err(error),
        };
        let held = match &base.entry {
            Some(entry) => Held::of(&mut reading, entry)?,
            None => Held::default(),
        };
        let writing = self.writing(&manifests, stretch, lane, &gaps);
        let entry = match writing.entry(manifest.version + 1, &believed) {
            Ok(entry) => entry,
            Err(LakeError::Gone { path }) => {
                self.gone((stretch, lane), &base, path)?;
                return Ok(Anew::Stale);
            }
            Err(error) => return Err(error),
        };
        if held.is_more_than(&entry) {
            // What was written for nothing is swept.
            return Ok(Anew::WouldLose);
        }
        let wanted = Wanted::Closed(entry);
        let proposal = Proposal { wanted, base, sweeps: manifest.sweeps };
        let is_listed = self.list(&day, &[proposal], now_ms)?;
        Ok(if is_listed { Anew::Written } else { Anew::Stale })
    }
}

/// What became of a stretch.
enum Anew {
    Written,
    /// Somebody was faster.
    Stale,
    /// The lake has what the store no longer has.
    WouldLose,
}

/// What a listed entry is known to have held, whatever has become of its files.
#[derive(Default)]
struct Held {
    rows: u64,
    lists: bool,
}

impl Held {
    /// By the entry itself; entries of builds that did not tell of lists by what can be read of them.
    fn of(reading: &mut Reading, entry: &Entry) -> Result<Held, LakeError> {
        let mut lists = entry.lists;
        if !lists {
            reading.rows(entry, &|_| true, &mut |row, _| {
                lists |= row.requests.iter().any(Option::is_some) && row.ids() > 0;
            })?;
        }
        Ok(Held { rows: entry.rows, lists })
    }

    fn is_more_than(&self, entry: &Entry) -> bool {
        entry.rows < self.rows || (self.lists && !entry.lists)
    }
}
