//! Reading cells and members: by the index of what there is, partition by partition.

use super::cluster::{CountRow, Part, Partition, Select};
use super::{CassandraStore, page_of};
use crate::layout::{decode_both, read_members};
use crate::{CellQuery, Members, SinkError};
use marquee_model::{CellCounts, CellKey};
use marquee_pipeline::chunk::{ChunkError, Id};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Partitions that are read together.
const TOGETHER: usize = 64;

/// Both sets of some videos.
type Sets = BTreeMap<String, [BTreeSet<Id>; 2]>;

impl CassandraStore {
    /// The slices of epochs that have cells, by epoch; their bucket means nothing.
    fn slices(&self, query: &CellQuery) -> Result<Vec<Partition<'static>>, SinkError> {
        let cluster = &self.shared.cluster;
        let mut slices = Vec::new();
        for &epoch_ms in self.shared.generation.epochs_ms() {
            let kept_ms = self.kept_from(epoch_ms);
            let from_ms = query.from_ms.unwrap_or(i64::MIN).max(kept_ms);
            let to_ms = query.to_ms.unwrap_or(i64::MAX);
            if from_ms >= to_ms {
                continue;
            }
            let (first, last) = (page_of(epoch_ms, from_ms), page_of(epoch_ms, to_ms - 1));
            let pages = self.ask(|| cluster.pages(self.id(), epoch_ms))?;
            for page in pages.into_iter().filter(|page| (first..=last).contains(page)) {
                let of_page = self.ask(|| cluster.slices(self.id(), epoch_ms, page))?;
                let wanted = of_page.into_iter().filter(|(epoch_start_ms, slice)| {
                    (from_ms..to_ms).contains(epoch_start_ms)
                        && query.slice.as_ref().is_none_or(|only| only == slice)
                });
                slices.extend(wanted.map(|(epoch_start_ms, slice)| Partition {
                    epoch_ms,
                    epoch_start_ms,
                    slice: Cow::Owned(slice),
                    bucket: 0,
                }));
            }
        }
        Ok(slices)
    }

    /// The partitions of counts that a query needs, those of a slice of an epoch together.
    fn partitions(&self, query: &CellQuery) -> Result<Vec<Partition<'static>>, SinkError> {
        let only = query.video.as_ref().map(|video| u16::from(self.bucket_of(video)));
        let buckets = || only.map_or(0..self.shared.buckets, |bucket| bucket..bucket + 1);
        let of_slice = |slice: Partition<'static>| {
            buckets().map(move |bucket| Partition { bucket: bucket as u8, ..slice.clone() })
        };
        Ok(self.slices(query)?.into_iter().flat_map(of_slice).collect())
    }

    fn counts(
        &self,
        partitions: &[Partition<'_>],
        select: Select<'_>,
    ) -> Result<Vec<Vec<CountRow>>, SinkError> {
        self.ask(|| self.shared.cluster.counts(self.id(), partitions, select))
    }

    /// See [`crate::Store::cells`].
    pub(super) fn read_cells(
        &self,
        query: &CellQuery,
        each: &mut dyn FnMut(CellKey, CellCounts),
    ) -> Result<(), SinkError> {
        let partitions = self.partitions(query)?;
        if let Some(video) = &query.video {
            for partitions in partitions.chunks(TOGETHER) {
                let rows = self.counts(partitions, Select::Video(video))?;
                for (at, rows) in partitions.iter().zip(rows) {
                    tell_sums(at, &rows, each);
                }
            }
            return Ok(());
        }
        for partitions in partitions.chunks(TOGETHER) {
            let read = |stale: &[Partition<'static>]| self.counts(stale, Select::All);
            self.shared.views.read(partitions, read, |at, video, counts| {
                each(key_of(at, video), counts);
            })?;
            self.shared.views.refresh_later(self, partitions);
        }
        Ok(())
    }

    /// Reads partitions again, for readers to come.
    pub(super) fn refresh(&self, partitions: &[Partition<'static>]) -> Result<(), SinkError> {
        // One after the other: nobody waits for it, and those who ask meanwhile should not, either.
        for at in partitions {
            let (at, read_at) = (std::slice::from_ref(at), Instant::now());
            let rows = self.counts(at, Select::All)?;
            self.shared.views.install(at, rows, read_at);
        }
        Ok(())
    }

    /// Starts of the longest epochs that have cells, of whatever length.
    pub(super) fn read_epochs(&self, from_ms: i64, to_ms: i64) -> Result<BTreeSet<i64>, SinkError> {
        let longest_ms = self.shared.generation.epochs_ms()[0];
        let (from_ms, to_ms) = (Some(from_ms), Some(to_ms));
        let slices = self.slices(&CellQuery { from_ms, to_ms, ..CellQuery::default() })?;
        let epoch = |start_ms: i64| start_ms - start_ms.rem_euclid(longest_ms);
        Ok(slices.into_iter().map(|slice| epoch(slice.epoch_start_ms)).collect())
    }

    /// The counts of one lane, or of each one, in epochs that start within a time.
    pub(super) fn read_counts(
        &self,
        lane: Option<u32>,
        (from_ms, to_ms): (i64, Option<i64>),
        each: &mut dyn FnMut(u32, CellKey, CellCounts),
    ) -> Result<(), SinkError> {
        let query = CellQuery { from_ms: Some(from_ms), to_ms, ..CellQuery::default() };
        for partitions in self.partitions(&query)?.chunks(TOGETHER) {
            let rows = self.counts(partitions, lane.map_or(Select::All, Select::Lane))?;
            for (at, rows) in partitions.iter().zip(rows) {
                for CountRow { video, lane, impressions, plays } in rows {
                    each(lane, key_of(at, &video), CellCounts { impressions, plays });
                }
            }
        }
        Ok(())
    }

    /// Both sets of each cell of one lane, in epochs that start within a time, as far as they were added
    /// from a position on.
    pub(super) fn read_members(
        &self,
        lane: u32,
        (from_ms, to_ms): (i64, Option<i64>),
        position: u64,
        each: &mut dyn FnMut(CellKey, [BTreeSet<Id>; 2]),
    ) -> Result<(), SinkError> {
        let query = CellQuery { from_ms: Some(from_ms), to_ms, ..CellQuery::default() };
        for slice in self.slices(&query)? {
            for (at, parts) in self.parts_of(lane, slice)? {
                for (video, sets) in self.sets(lane, &at, &parts, position)? {
                    each(key_of(&at, &video), sets);
                }
            }
        }
        Ok(())
    }

    /// See [`crate::Store::members_of_cells`].
    pub(super) fn read_members_of_cells(
        &self,
        lane: u32,
        cells: &[&CellKey],
    ) -> Result<Members, SinkError> {
        type Slices<'c> = BTreeMap<(i64, i64, &'c str), BTreeMap<&'c str, &'c CellKey>>;
        let mut slices = Slices::new();
        for &cell in cells {
            let slice = (cell.epoch_ms, cell.epoch_start_ms, cell.slice.as_str());
            slices.entry(slice).or_default().insert(&cell.video, cell);
        }
        let mut members = Members::new();
        for ((epoch_ms, epoch_start_ms, slice), cells) in slices {
            let slice = Cow::Owned(slice.to_owned());
            let slice = Partition { epoch_ms, epoch_start_ms, slice, bucket: 0 };
            let wanted: BTreeSet<u8> = cells.keys().map(|video| self.bucket_of(video)).collect();
            for (at, parts) in self.parts_of(lane, slice)? {
                if !wanted.contains(&at.bucket) {
                    continue;
                }
                for (video, sets) in self.sets(lane, &at, &parts, 0)? {
                    if let Some(&cell) = cells.get(video.as_str()) {
                        members.insert(cell.clone(), sets);
                    }
                }
            }
        }
        Ok(members)
    }

    /// A lane's parts of members of a slice of an epoch, by bucket.
    fn parts_of(
        &self,
        lane: u32,
        slice: Partition<'static>,
    ) -> Result<Vec<(Partition<'static>, Vec<Part>)>, SinkError> {
        let mut parts = self.ask(|| self.shared.cluster.parts(self.id(), &slice))?;
        parts.retain(|part| part.lane == lane);
        parts.sort_unstable();
        let of_bucket = |parts: &[Part]| {
            (Partition { bucket: parts[0].bucket, ..slice.clone() }, parts.to_vec())
        };
        Ok(parts.chunk_by(|a, b| a.bucket == b.bucket).map(of_bucket).collect())
    }

    /// Both sets of all videos of a partition, as far as a lane has added to them from a position on.
    fn sets(
        &self,
        lane: u32,
        at: &Partition<'_>,
        parts: &[Part],
        position: u64,
    ) -> Result<Sets, SinkError> {
        let mut sets = Sets::new();
        let from_name = position.to_be_bytes();
        for part in parts {
            let mut damage: Option<ChunkError> = None;
            self.ask(|| {
                let (cluster, part) = (&self.shared.cluster, (lane, part.part));
                cluster.members(self.id(), at, part, &from_name, &mut |_, bytes| {
                    damage = add_to(&mut sets, bytes).err().or(damage.take());
                })
            })?;
            if let Some(error) = damage {
                return Err(self.damaged(&format!("a chunk is unreadable: {error}")));
            }
        }
        Ok(sets)
    }
}

fn add_to(sets: &mut Sets, bytes: &[u8]) -> Result<(), ChunkError> {
    read_members(bytes, |video, chunks| match sets.get_mut(video) {
        Some(sets) => decode_both(chunks, sets),
        None => decode_both(chunks, sets.entry(video.to_owned()).or_default()),
    })
}

pub(super) fn key_of(at: &Partition<'_>, video: &str) -> CellKey {
    CellKey {
        video: video.to_owned(),
        epoch_start_ms: at.epoch_start_ms,
        epoch_ms: at.epoch_ms,
        slice: at.slice.as_ref().to_owned(),
    }
}

/// Tells each cell of some rows, which are ordered by video, lanes added up.
fn tell_sums(at: &Partition<'_>, rows: &[CountRow], each: &mut dyn FnMut(CellKey, CellCounts)) {
    for rows in rows.chunk_by(|a, b| a.video == b.video) {
        let of_lane =
            |row: &CountRow| CellCounts { impressions: row.impressions, plays: row.plays };
        let sum = rows.iter().map(of_lane).fold(CellCounts::default(), CellCounts::plus);
        each(key_of(at, &rows[0].video), sum);
    }
}
