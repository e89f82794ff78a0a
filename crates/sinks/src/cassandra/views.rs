//! Counts that are kept in memory for readers, so that a page of the top of ten thousand videos does
//! not read forty thousand rows each time.
//!
//! What this process writes is in them as soon as it is acknowledged. What others write (lanes of
//! other processes, a backfill) is read again in the background once a view is a second old, and before
//! it is used once it is ten seconds old. Counts only grow, so the larger one of two is the newer one,
//! whichever came first.

use super::CassandraStore;
use super::cluster::{CountRow, Partition};
use crate::SinkError;
use marquee_model::CellCounts;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// After this long a view is read again, while it is still used.
const STALE_AFTER: Duration = Duration::from_secs(1);
/// After this long it is not used before it was read again.
const OLD_AFTER: Duration = Duration::from_secs(10);

/// Partitions of counts in memory.
#[derive(Debug)]
pub(super) struct Views {
    views: Mutex<HashMap<Partition<'static>, View>>,
    /// Rows of all of them, at most.
    most_rows: usize,
    is_refreshing: AtomicBool,
}

/// One partition.
#[derive(Debug)]
struct View {
    /// When its reading began; `None` while it is read for the first time, and only told what changes.
    read_at: Option<Instant>,
    used_at: Instant,
    /// By video, the counts of each lane.
    videos: BTreeMap<String, Vec<(u32, CellCounts)>>,
    rows: usize,
}

impl View {
    fn new(used_at: Instant) -> Self {
        View { read_at: None, used_at, videos: BTreeMap::new(), rows: 0 }
    }

    fn note(&mut self, video: &str, lane: u32, counts: CellCounts) {
        if !self.videos.contains_key(video) {
            self.videos.insert(video.to_owned(), Vec::new());
        }
        let lanes = self.videos.get_mut(video).expect("it is there now");
        match lanes.iter_mut().find(|(of, _)| *of == lane) {
            Some((_, known)) => *known = larger(*known, counts),
            None => {
                lanes.push((lane, counts));
                self.rows += 1;
            }
        }
    }
}

/// Both sets only grow.
fn larger(a: CellCounts, b: CellCounts) -> CellCounts {
    CellCounts { impressions: a.impressions.max(b.impressions), plays: a.plays.max(b.plays) }
}

impl Views {
    pub(super) fn new(most_rows: usize) -> Self {
        Views { views: Mutex::default(), most_rows, is_refreshing: AtomicBool::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Partition<'static>, View>> {
        self.views.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// A count was acknowledged.
    pub(super) fn note(&self, at: &Partition<'_>, video: &str, lane: u32, counts: CellCounts) {
        let mut views = self.lock();
        if views.is_empty() {
            return;
        }
        if let Some(view) = views.get_mut(&at.clone().into_owned()) {
            view.note(video, lane, counts);
        }
    }

    /// Partitions are about to be read: what is acknowledged meanwhile must not be missed.
    fn begin(&self, partitions: &[Partition<'static>]) -> Instant {
        let now = Instant::now();
        let mut views = self.lock();
        for at in partitions {
            views.entry(at.clone()).or_insert_with(|| View::new(now));
        }
        now
    }

    /// Takes rows whose reading began then.
    pub(super) fn install(
        &self,
        partitions: &[Partition<'static>],
        rows: Vec<Vec<CountRow>>,
        read_at: Instant,
    ) {
        let mut views = self.lock();
        for (at, rows) in partitions.iter().zip(rows) {
            let view = views.entry(at.clone()).or_insert_with(|| View::new(read_at));
            view.read_at = Some(read_at);
            for CountRow { video, lane, impressions, plays } in rows {
                view.note(&video, lane, CellCounts { impressions, plays });
            }
        }
        self.let_go(&mut views);
    }

    /// Lets views go that were not used for the longest, if there are too many rows.
    fn let_go(&self, views: &mut HashMap<Partition<'static>, View>) {
        // An empty one takes something, too.
        let mut rows: usize = views.values().map(|view| view.rows + 1).sum();
        if rows <= self.most_rows {
            return;
        }
        let used = |(at, view): (&Partition<'static>, &View)| (view.used_at, at.clone());
        let mut oldest: Vec<_> = views.iter().map(used).collect();
        oldest.sort_unstable();
        for (_, at) in oldest {
            if rows <= self.most_rows {
                break;
            }
            rows -= views.remove(&at).map_or(0, |view| view.rows + 1);
        }
    }

    /// Calls `each` with the sums of some partitions; `read` reads those that are not known, or too
    /// old.
    pub(super) fn read(
        &self,
        partitions: &[Partition<'static>],
        read: impl Fn(&[Partition<'static>]) -> Result<Vec<Vec<CountRow>>, SinkError>,
        mut each: impl FnMut(&Partition<'static>, &str, CellCounts),
    ) -> Result<(), SinkError> {
        let unread = self.older_than(partitions, OLD_AFTER);
        let keeps = self.most_rows > 0;
        let read_at = if keeps { self.begin(&unread) } else { Instant::now() };
        let rows = if unread.is_empty() { Vec::new() } else { read(&unread)? };
        // Told as they were read: there may be more of them than are kept.
        let of_unread: HashMap<&Partition<'_>, BTreeMap<String, CellCounts>> =
            unread.iter().zip(rows.iter().map(|rows| sums(rows))).collect();
        let now = Instant::now();
        let mut gone = Vec::new();
        {
            let mut views = self.lock();
            for at in partitions {
                if let Some(sums) = of_unread.get(at) {
                    sums.iter().for_each(|(video, counts)| each(at, video, *counts));
                } else if let Some(view) = views.get_mut(at).filter(|view| view.read_at.is_some()) {
                    view.used_at = now;
                    for (video, lanes) in &view.videos {
                        let counts = lanes.iter().map(|(_, counts)| *counts);
                        each(at, video, counts.fold(CellCounts::default(), CellCounts::plus));
                    }
                } else {
                    gone.push(at.clone()); // let go since it was looked at
                }
            }
        }
        drop(of_unread);
        let again = if gone.is_empty() { Vec::new() } else { read(&gone)? };
        for (at, rows) in gone.iter().zip(&again) {
            sums(rows).iter().for_each(|(video, counts)| each(at, video, *counts));
        }
        if keeps {
            self.install(&unread, rows, read_at);
        }
        Ok(())
    }

    /// Those that are not known, or were read longer ago than that.
    fn older_than(
        &self,
        partitions: &[Partition<'static>],
        age: Duration,
    ) -> Vec<Partition<'static>> {
        let views = self.lock();
        let is_old = |at: &&Partition<'static>| {
            let read_at = views.get(*at).and_then(|view| view.read_at);
            read_at.is_none_or(|read_at| read_at.elapsed() >= age)
        };
        partitions.iter().filter(is_old).cloned().collect()
    }

    /// Has those read again that are stale, by one thread at a time. Where that fails they become too
    /// old, and whoever asks next is told.
    pub(super) fn refresh_later(&self, store: &CassandraStore, partitions: &[Partition<'static>]) {
        let mut stale = self.older_than(partitions, STALE_AFTER);
        stale.retain(|at| self.lock().contains_key(at));
        if stale.is_empty() || self.is_refreshing.swap(true, Ordering::AcqRel) {
            return;
        }
        let refreshing = Refreshing(store.clone());
        std::thread::spawn(move || {
            if let Err(error) = refreshing.0.refresh(&stale) {
                tracing::debug!("counts were not read again: {error}");
            }
        });
    }
}

/// While counts are read again; also a panic ends that.
struct Refreshing(CassandraStore);

impl Drop for Refreshing {
    fn drop(&mut self) {
        self.0.shared.views.is_refreshing.store(false, Ordering::Release);
    }
}

fn sums(rows: &[CountRow]) -> BTreeMap<String, CellCounts> {
    let mut sums: BTreeMap<String, CellCounts> = BTreeMap::new();
    for CountRow { video, impressions, plays, .. } in rows {
        let counts = CellCounts { impressions: *impressions, plays: *plays };
        match sums.get_mut(video) {
            Some(sum) => *sum = sum.plus(counts),
            None => {
                sums.insert(video.clone(), counts);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;
    use std::cell::RefCell;

    fn at(bucket: u8) -> Partition<'static> {
        Partition { epoch_ms: 60, epoch_start_ms: 0, slice: Cow::Borrowed(""), bucket }
    }

    fn row(video: &str, lane: u32, impressions: u64) -> CountRow {
        CountRow { video: video.to_owned(), lane, impressions, plays: 0 }
    }

    fn shown(impressions: u64) -> CellCounts {
        CellCounts { impressions, plays: 0 }
    }

    /// Reads partitions that each have one video of two lanes; what is told, and what was asked for.
    fn read(views: &Views, buckets: &[u8], meanwhile: impl Fn()) -> (Vec<(u8, u64)>, Vec<u8>) {
        let partitions: Vec<_> = buckets.iter().map(|bucket| at(*bucket)).collect();
        let (mut told, asked) = (Vec::new(), RefCell::new(Vec::new()));
        let ask = |partitions: &[Partition<'static>]| {
            asked.borrow_mut().extend(partitions.iter().map(|at| at.bucket));
            meanwhile();
            Ok(partitions.iter().map(|_| vec![row("v", 0, 2), row("v", 1, 3)]).collect())
        };
        let each = |at: &Partition<'static>, _: &str, counts: CellCounts| {
            told.push((at.bucket, counts.impressions));
        };
        views.read(&partitions, ask, each).expect("it reads");
        told.sort_unstable();
        (told, asked.into_inner())
    }

    #[test]
    fn what_is_known_is_not_asked_for_and_grows_with_what_is_acknowledged() {
        let views = Views::new(100);
        assert_eq!(read(&views, &[1], || ()), (vec![(1, 5)], vec![1]));
        views.note(&at(1), "v", 0, shown(7));
        views.note(&at(1), "v", 1, shown(1));
        assert_eq!(read(&views, &[1], || ()), (vec![(1, 10)], vec![]), "and never shrinks");
    }

    #[test]
    fn what_is_acknowledged_while_it_is_read_for_the_first_time_is_not_missed() {
        let views = Views::new(100);
        read(&views, &[1], || views.note(&at(1), "v", 0, shown(9)));
        assert_eq!(read(&views, &[1], || ()), (vec![(1, 12)], vec![]));
    }

    #[test]
    fn what_is_let_go_while_others_are_read_is_read_again_and_told() {
        let views = Views::new(100);
        read(&views, &[1], || ());
        let let_go = || drop(views.lock().remove(&at(1)));
        assert_eq!(read(&views, &[1, 2], let_go), (vec![(1, 5), (2, 5)], vec![2, 1]));
    }

    #[test]
    fn no_more_is_kept_than_may_be_and_all_is_told() {
        let views = Views::new(10);
        let buckets: Vec<u8> = (0..50).collect();
        let (told, _) = read(&views, &buckets, || ());
        assert_eq!(told.len(), 50);
        let rows = views.lock().values().map(|view| view.rows + 1).sum::<usize>();
        assert!(rows <= 10, "{rows}");
        let keeps_none = Views::new(0);
        read(&keeps_none, &[1], || ());
        assert_eq!(read(&keeps_none, &[1], || ()), (vec![(1, 5)], vec![1]), "it always asks");
    }
}
