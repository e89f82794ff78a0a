//! `marquee verify`: closed epochs counted once more, beside what the store and the lake hold.

use super::{ConfigArgument, Failure};
use crate::archive::Alone;
use crate::config::Config;
use crate::log::{self, LogAgain};
use crate::store::{self, Look};
use crate::{service, wiring};
use indicatif::{ProgressBar, ProgressStyle};
use marquee_model::{Kind, parse_time_ms};
use marquee_runtime::backfill::{Events, RecomputeError};
use marquee_runtime::sealer::{self, SealerSettings};
use marquee_runtime::verify::{
    Difference, LakeCells, LakeReport, Report, Verify, VerifyError, What,
};
use marquee_runtime::{Plan, open_files, pages};
use marquee_sinks::lake::{Bucket, LakePlace, Stop};
use marquee_sinks::{SinkError, Store};
use marquee_sources::files::FileError;
use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// What `--help` says besides.
const MORE: &str = "\
Only epochs that are sealed (closed in all lanes) are compared, with the store and, where [lake] names
one, with the lake. Each cell that differs in one of them is one line of JSON on standard output (its
`place` says in which); what was read, compared and not compared is said on standard error.

`what` is one of
  absent         the place holds nothing of the cell
  members        members are missing or extra, and the count is the size of the set beside it
  count          the members are right, the count is not
  count_members  members are missing or extra, and the count is not even the size of the set beside it

--repair adds missing members by union, and records it. It takes nothing away: extra members, and
counts that are too high, stay and are reported. What differs in the lake is written there anew, from
the store and from those of its files that are as they were written.

Exit codes: 0 nothing differs (or all of it was repaired); 1 something differs, or it failed; 2 wrong
usage or configuration.";

#[derive(Debug, clap::Args)]
#[command(after_help = MORE)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Epochs that start at or after this time (RFC 3339 or milliseconds). With files it also says
    /// that they hold every event that belongs to these epochs
    #[arg(long, value_name = "T", value_parser = parse_time_ms)]
    from: Option<i64>,
    /// Epochs that start before this time (with files: see --from)
    #[arg(long, value_name = "T", value_parser = parse_time_ms)]
    to: Option<i64>,
    /// Count from files of impressions, and not from the configured log
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "plays")]
    impressions: Vec<PathBuf>,
    /// Files of plays
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "impressions")]
    plays: Vec<PathBuf>,
    /// Count the raw events that the lake keeps ([lake] events = true), and do without the log
    #[arg(long, conflicts_with_all = ["impressions", "plays"])]
    lake: bool,
    /// Add what the store lacks
    #[arg(long)]
    repair: bool,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        open_files::raise_limit();
        pages::stay_small();
        let config = self.config.load()?;
        let plan = wiring::plan(&config)?;
        self.check(&config)?;
        let started = Instant::now();
        let kept = match self.lake {
            true => Some(Alone::find(&config, &plan)?),
            false => None,
        };
        let (plan, cluster) = match self.reads_files() || self.lake {
            true => (log::lanes_of_store(&config, plan)?, None),
            false => log::connect(&config, plan)?,
        };
        let (store, threads) = (open_store(&config, &plan)?, wiring::threads(&config));
        let events = match kept {
            Some(kept) => Events::Log(kept.of_store(&config, &plan, &*store, threads)?),
            None if self.reads_files() => Events::Files(self.inputs()),
            None => {
                let log = LogAgain::open(&config, &plan, cluster)?.with_archive(&config)?;
                Events::Log(log.events(&*store, &plan, threads)?)
            }
        };
        let settings = service::sealer_settings(&config);
        let (lake, note) = match &settings {
            Some(settings) => open_lake(&config, settings, &*store)?,
            None => (None, None),
        };
        let mut report = self.compare(&config, &plan, (&*store, lake), events)?;
        report.notes.extend(note);
        let mut written = Ok(());
        if let (Some(settings), Some(lake)) = (&settings, &report.lake)
            && self.repair
            && !lake.anew.is_empty()
        {
            written = write_anew(settings, store, lake);
        }
        // What was found is said whatever became of it.
        let said = self.say(&report, started.elapsed().as_secs_f64());
        written.and(said)
    }

    fn compare(
        &self,
        config: &Config,
        plan: &Plan,
        (store, lake): (&dyn Store, Option<LakeCells>),
        events: Events,
    ) -> Result<Report, Failure> {
        let bar = progress(self.reads_files());
        let [run, _] = wiring::random_words();
        let verify = Verify {
            plan,
            store,
            keeps_members: config.store.members.in_store(),
            forgotten_before_ms: wiring::forgotten_before_ms(config),
            lake,
            from_ms: self.from,
            to_ms: self.to,
            repair: self.repair.then_some(run),
            threads: wiring::threads(config),
            memory_bytes: config.runtime.memory_bytes / 2,
            secret: wiring::secret(),
            stop: &|| false,
            progress: &|read, total| {
                if !bar.is_hidden() {
                    bar.set_length(total.unwrap_or(read));
                    bar.set_position(read);
                }
            },
        };
        let mut out = BufWriter::new(std::io::stdout().lock());
        let report = verify.run(events, &mut |difference| write_line(&mut out, difference));
        bar.finish_and_clear();
        // What was found before it failed is said, too.
        let flushed = out.flush().map_err(VerifyError::Output);
        report.and_then(|report| flushed.map(|()| report)).map_err(failure)
    }

    fn reads_files(&self) -> bool {
        !self.impressions.is_empty()
    }

    fn inputs(&self) -> Vec<(Kind, PathBuf)> {
        let of_kind = |kind, paths: &[PathBuf]| {
            paths.iter().map(|path| (kind, path.clone())).collect::<Vec<_>>()
        };
        [of_kind(Kind::Impression, &self.impressions), of_kind(Kind::Play, &self.plays)].concat()
    }

    fn check(&self, config: &Config) -> Result<(), Failure> {
        if let (Some(from), Some(to)) = (self.from, self.to)
            && from >= to
        {
            let words = "--from must be before --to: no epoch starts in between";
            return Err(Failure::Usage(words.to_owned()));
        }
        if self.repair && !config.store.members.in_store() {
            return Err(Failure::Usage(VerifyError::NoMembers.to_string()));
        }
        let stdin = [&self.impressions, &self.plays].into_iter().flatten();
        if stdin.filter(|path| path.as_os_str() == "-").count() > 1 {
            let words = "standard input (`-`) can be read once; give the other input as a file";
            return Err(Failure::Usage(words.to_owned()));
        }
        Ok(())
    }

    /// The summary; its last line is for programs, too.
    fn say(&self, report: &Report, seconds: f64) -> Result<(), Failure> {
        for note in &report.notes {
            eprintln!("note: {note}");
        }
        if self.repair {
            eprintln!(
                "{} members added, {} gaps filled, {} cells still differ",
                report.added_members, report.filled_gaps, report.left
            );
        }
        let mut left = Vec::new();
        if report.left > 0 {
            let (differing, left_cells) = (&report.differing, report.left);
            left.push(format!(
                "{} cells differ{}",
                report.differences(),
                by_what(differing, left_cells)
            ));
        }
        left.extend(report.lake.as_ref().into_iter().flat_map(|lake| self.say_lake(lake)));
        let events = &report.events;
        eprintln!(
            "{} events, {} filtered, {} dead, {} cells, {} epochs, {} differing, {seconds:.2} seconds",
            events.events,
            events.filtered,
            events.dead,
            report.cells,
            report.epochs,
            report.differences()
        );
        match left.is_empty() {
            true => Ok(()),
            false => Err(Failure::Failed(left.join("; "))),
        }
    }

    /// The summary of the lake; returns what is left there, in words.
    fn say_lake(&self, lake: &LakeReport) -> Vec<String> {
        for broken in &lake.broken {
            eprintln!("lake: {broken}");
        }
        let (differing, files) = (lake.differences(), lake.broken.len());
        eprintln!("lake: {} cells, {differing} differ, {files} files cannot be used", lake.cells);
        let mut left = Vec::new();
        if lake.left > 0 {
            let by_what = by_what(&lake.differing, lake.left);
            left.push(format!("{differing} cells of the lake differ{by_what}"));
        }
        if files > 0 && !self.repair {
            left.push(format!("{files} files of the lake are listed and cannot be used"));
        }
        left
    }
}

/// ` (1 absent, 2 members; 1 of them were repaired)`
fn by_what(differing: &BTreeMap<What, u64>, left: u64) -> String {
    let words: Vec<String> =
        differing.iter().map(|(what, n)| format!("{n} {}", what.code())).collect();
    let repaired = match differing.values().sum::<u64>() - left {
        0 => String::new(),
        repaired => format!("; {repaired} of them were repaired"),
    };
    format!(" ({}){repaired}", words.join(", "))
}

/// The lake, as far as there is one, or why it is not compared. Makes none.
fn open_lake(
    config: &Config,
    settings: &SealerSettings,
    store: &dyn Store,
) -> Result<(Option<LakeCells>, Option<String>), Failure> {
    let place = &settings.place;
    let nothing =
        || format!("the lake {place} is not compared: it holds nothing of this store yet");
    if matches!(place, LakePlace::Folder(folder) if !folder.exists()) {
        return Ok((None, Some(nothing())));
    }
    let bucket = Bucket::open(place, Stop::default()).map_err(Failure::failed)?;
    let memory_bytes = config.runtime.memory_bytes / 8;
    let lake = LakeCells::open(Arc::new(bucket), store, memory_bytes).map_err(Failure::failed)?;
    let note = lake.is_none().then(nothing);
    Ok((lake, note))
}

/// Writes what was found wrong in the lake. What was added to the store is there in any case.
fn write_anew(
    settings: &SealerSettings,
    store: Arc<dyn Store>,
    lake: &LakeReport,
) -> Result<(), Failure> {
    let (written, left) = sealer::write_anew(settings, store, &lake.anew).map_err(|error| {
        Failure::Failed(format!(
            "the lake was not repaired: {error}. The store is; run the same once more"
        ))
    })?;
    eprintln!(
        "{} stretches of lanes written anew into the lake, {} files, {} bytes",
        written.sealed, written.files, written.bytes
    );
    if left > 0 {
        return Err(Failure::Failed(format!(
            "{left} stretches of lanes in the lake stay as they are: the store no longer has all of what \
             they held (by members_retention or retention), so they cannot be made again. Put their files \
             back from a copy of the lake"
        )));
    }
    Ok(())
}

fn open_store(config: &Config, plan: &Plan) -> Result<Arc<dyn Store>, Failure> {
    match store::look(config, plan)? {
        Look::Open(store) => Ok(store),
        Look::InUse { error: SinkError::Locked { path, owner }, .. } => {
            Err(Failure::Failed(format!(
                "the store {path} is in use by another process{owner}, and verify needs it for itself. \
             Stop that service (it loses nothing), run verify, and start it again; or let it \
             compare and repair its closed epochs by itself: [repair] interval = \"6h\""
            )))
        }
        Look::InUse { error, .. } => Err(Failure::failed(error)),
    }
}

fn write_line(out: &mut impl Write, difference: &Difference) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, difference)?;
    out.write_all(b"\n")
}

fn failure(error: VerifyError) -> Failure {
    match error {
        // Found before anything was started.
        VerifyError::Recompute(RecomputeError::Input(FileError::Open { .. })) => {
            Failure::Usage(error.to_string())
        }
        other => Failure::failed(other),
    }
}

/// What is shown while events are read, on a terminal only.
fn progress(is_bytes: bool) -> ProgressBar {
    let bar = ProgressBar::new(0);
    let template = match is_bytes {
        true => "{bar:30} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left",
        false => "{human_pos} records of the log, {per_sec}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
