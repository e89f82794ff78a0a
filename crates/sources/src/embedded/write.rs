//! Writing one group: roll, write, sync, and only then let readers see it.
//!
//! All of a group's lanes are written before the first is synced. So when there is no room on the
//! disk, nothing of the group is durable yet and all of it is cut off again: later records never
//! stand behind the rest of a failed write. After a failed sync nobody knows what the disk holds
//! (the system may have thrown the unwritten pages away and call them clean), so what is cut off
//! then is only tidied, and the log takes no more records.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::{
    commit::{Failure, Group, Part},
    error::LogError,
    frame::{self, HEADER_LEN, Header},
    handles::Handles,
    lane::Lane,
    segment::{self, Milestones, Place, Segment},
};

/// How many files are synced at once.
const SYNCS_AT_ONCE: usize = 8;

/// Where one part of a group goes.
struct Target<'a> {
    lane: &'a Lane,
    part: &'a mut Part,
    path: PathBuf,
    file: Arc<File>,
    salt: u32,
    /// Where the lane ends, which is where the part begins.
    start: Place,
    milestones: Milestones,
}

/// Writes and syncs `group`; returns the first offset for each lane.
pub(super) fn write_group(
    lanes: &[Lane],
    handles: &Handles,
    segment_bytes: u64,
    group: &mut Group,
) -> Result<Vec<u64>, Failure> {
    let firsts = lanes.iter().map(|lane| lane.range().1).collect();
    let parts = lanes.iter().zip(&mut group.parts).filter(|(_, part)| part.records > 0);
    let targets = parts.map(|(lane, part)| aim(lane, part, handles, segment_bytes));
    let mut targets = targets.collect::<Result<Vec<_>, _>>()?;
    for index in 0..targets.len() {
        if let Err(error) = targets[index].write() {
            return Err(undo(&targets[..=index], error));
        }
    }
    if let Err(error) = sync(&targets) {
        // Cutting may fail as well; there is nothing more to lose and nothing to report.
        let _ = undo(&targets, error.clone());
        return Err(Failure::Unknown(error));
    }
    targets.into_iter().for_each(Target::publish);
    Ok(firsts)
}

/// Finds a part's place, in a new segment if the last one is full. A segment grows beyond its
/// size only when one group alone is larger.
fn aim<'a>(
    lane: &'a Lane,
    part: &'a mut Part,
    handles: &Handles,
    segment_bytes: u64,
) -> Result<Target<'a>, Failure> {
    let last = || {
        let state = lane.state();
        let segment = state.segments.last().expect("a lane has at least one segment");
        let start = Place { offset: state.end, position: segment.length };
        (segment.base, segment.salt, start)
    };
    let (_, _, end) = last();
    let is_used = end.position > HEADER_LEN as u64;
    if is_used && end.position + part.frames.len() as u64 > segment_bytes {
        roll(lane)?;
    }
    let (base, salt, start) = last();
    let path = segment::file_of(&lane.folder, base);
    let file = handles.get(&path).map_err(Failure::Undone)?;
    let milestones = Milestones::default();
    Ok(Target { lane, part, path, file, salt, start, milestones })
}

/// Begins a new segment. All of the one before is synced: parts are aimed before any is written.
fn roll(lane: &Lane) -> Result<(), Failure> {
    let (before, base) = {
        let state = lane.state();
        let last = state.segments.last().expect("a lane has at least one segment");
        ((last.base, last.length), state.end)
    };
    let header = Header { base, before: Some(before), salt: segment::new_salt() };
    segment::create(&lane.folder, &header).map_err(|error| {
        // Its header says how long the segment before is. If the file may have come to be all
        // the same, writing on in the one before would contradict it.
        match segment::file_of(&lane.folder, base).try_exists() {
            Ok(false) => Failure::Undone(error),
            _ => Failure::Unknown(error),
        }
    })?;
    lane.state().segments.push(Segment::new(&header, HEADER_LEN as u64));
    Ok(())
}

impl Target<'_> {
    fn write(&mut self) -> Result<(), LogError> {
        let Self { milestones, start, .. } = self;
        frame::stamp(&mut self.part.frames, start.offset, self.salt, |offset, at| {
            milestones.pass(Place { offset, position: start.position + at as u64 });
        });
        let written = self.file.write_all_at(&self.part.frames, start.position);
        written.map_err(|error| LogError::io("write", &self.path, error))
    }

    fn sync(&self) -> Result<(), LogError> {
        self.file.sync_data().map_err(|error| LogError::io("sync", &self.path, error))
    }

    /// Moves the lane's end on: from here on the records are visible.
    fn publish(self) {
        let mut state = self.lane.state();
        state.end += self.part.records;
        let segment = state.segments.last_mut().expect("a lane has at least one segment");
        segment.length += self.part.frames.len() as u64;
        self.milestones.places.into_iter().for_each(|place| segment.learn(place));
    }
}

/// Syncs all targets, several at once: syncs that come together share round trips to the disk.
/// On a machine that starts no more threads they come one after the other.
fn sync(targets: &[Target<'_>]) -> Result<(), LogError> {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
            target.sync()?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let start = |_| thread::Builder::new().spawn_scoped(scope, work).ok();
        let others: Vec<_> = (1..targets.len().min(SYNCS_AT_ONCE)).filter_map(start).collect();
        others.into_iter().fold(work(), |outcome, other| {
            outcome.and(other.join().expect("syncing a file does not panic"))
        })
    })
}

/// Cuts off what a group has written.
fn undo(targets: &[Target<'_>], error: LogError) -> Failure {
    let cut = |target: &Target<'_>| target.file.set_len(target.start.position);
    match targets.iter().map(cut).filter(Result::is_err).count() {
        0 => Failure::Undone(error),
        _ => Failure::Unknown(error),
    }
}
