//! `marquee backfill`: files that end, or the raw events of the lake, counted at once.

use super::{ConfigArgument, Failure};
use crate::archive::Alone;
use crate::config::{Config, LogKind};
use crate::{log, service, store, wiring};
use indicatif::{ProgressBar, ProgressStyle};
use marquee_model::Kind;
use marquee_runtime::backfill::{Backfill, BackfillError, DeadLetters, Outcome, write_into};
use marquee_runtime::examples::{ExamplesSettings, examples_of_files};
use marquee_runtime::sealer::seal_now;
use marquee_runtime::{Plan, open_files, pages};
use marquee_sinks::{Store, cells};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Files of impressions
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present = "lake")]
    impressions: Vec<PathBuf>,
    /// Files of plays
    #[arg(long, value_name = "FILE", num_args = 1.., required_unless_present = "lake")]
    plays: Vec<PathBuf>,
    /// Count the raw events that the lake keeps ([lake] events = true), and no files
    #[arg(long, conflicts_with_all = ["impressions", "plays", "dead"])]
    lake: bool,
    /// Write all cells to a .csv or .parquet file; without it, into the configured store
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Threads (default: [runtime] threads, or one for each core)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,
    /// Write bad records here, as NDJSON
    #[arg(long, value_name = "FILE")]
    dead: Option<PathBuf>,
    /// Fail (exit code 1) if there is a bad record
    #[arg(long)]
    strict: bool,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        open_files::raise_limit();
        pages::stay_small();
        let config = self.config.load()?;
        let mut plan = wiring::plan(&config)?;
        self.check()?;
        let kept = match self.lake {
            true => Some(Alone::find(&config, &plan)?),
            false => None,
        };
        if let Some(kept) = &kept {
            plan = lanes_of(&config, plan, kept)?;
        }
        if self.out.is_none() {
            service::refuse_unbuilt(&config)?;
            if kept.is_none() {
                plan = log::lanes_of_store(&config, plan)?;
            }
        }
        let started = Instant::now();
        let threads = self.threads.map_or_else(|| wiring::threads(&config), usize::from);
        let dead = match &self.dead {
            Some(path) => DeadLetters::to_file(path).map_err(|e| Failure::Usage(e.to_string()))?,
            None => DeadLetters::default(),
        };
        let of_kind = |kind, paths: &[PathBuf]| {
            paths.iter().map(|path| (kind, path.clone())).collect::<Vec<_>>()
        };
        let inputs =
            [of_kind(Kind::Impression, &self.impressions), of_kind(Kind::Play, &self.plays)]
                .concat();
        let plan = Arc::new(plan);
        let backfill = Backfill {
            plan: &plan,
            inputs: inputs.clone(),
            threads,
            memory_bytes: config.runtime.memory_bytes / 2,
            secret: wiring::secret(),
            dead,
            with_members: self.out.is_none(),
        };
        let bar = progress_bar(self.lake);
        if let Some(gaps) = kept.as_ref().map(Alone::gaps).filter(|gaps| *gaps > 0) {
            eprintln!(
                "note: the log had lost records before they were copied, {gaps} times: events are \
                 missing (files whose names end with -gap come after them)"
            );
        }
        let logs = kept.map(|kept| kept.all(&config, plan.lanes, threads)).unwrap_or_default();
        let outcome = backfill.run_with(logs, &|read, total| show(&bar, read, total));
        let outcome = outcome.map_err(failure)?;
        bar.finish_and_clear();
        let (summary, cells) = (outcome.summary, outcome.rows.len());
        self.write(&config, &plan, outcome, inputs)?;
        let seconds = started.elapsed().as_secs_f64();
        eprintln!(
            "{} events, {} filtered, {} dead, {} cells, {seconds:.2} seconds",
            summary.events, summary.filtered, summary.dead, cells
        );
        if self.strict && summary.dead > 0 {
            return Err(Failure::Failed(format!("{} bad records, and --strict", summary.dead)));
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Failure> {
        let stdin = [&self.impressions, &self.plays].into_iter().flatten();
        if stdin.filter(|path| path.as_os_str() == "-").count() > 1 {
            let words = "standard input (`-`) can be read once; give the other input as a file";
            return Err(Failure::Usage(words.to_owned()));
        }
        if let Some(out) = &self.out {
            let ending = out.extension().and_then(|ending| ending.to_str());
            if !matches!(ending, Some("csv" | "parquet")) {
                let words = "the name must end in .csv or .parquet, which says what is written";
                return Err(Failure::Usage(format!("--out {}: {words}", out.display())));
            }
        }
        for (flag, output) in [("--out", &self.out), ("--dead", &self.dead)] {
            if let Some(output) = output {
                self.check_output(flag, output)?;
            }
        }
        Ok(())
    }

    /// An output must have a folder, and must not be one of the inputs.
    fn check_output(&self, flag: &str, output: &Path) -> Result<(), Failure> {
        let usage = |words: String| Failure::Usage(format!("{flag} {}: {words}", output.display()));
        let folder = match output.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        if !folder.is_dir() {
            return Err(usage(format!("there is no folder {}; make it first", folder.display())));
        }
        let Ok(existing) = output.canonicalize() else { return Ok(()) };
        let inputs = [&self.impressions, &self.plays].into_iter().flatten();
        if inputs.filter_map(|input| input.canonicalize().ok()).any(|input| input == existing) {
            return Err(usage("it is one of the inputs; give another name".to_owned()));
        }
        Ok(())
    }

    fn write(
        &self,
        config: &Config,
        plan: &Arc<Plan>,
        outcome: Outcome,
        inputs: Vec<(Kind, PathBuf)>,
    ) -> Result<(), Failure> {
        if let Some(path) = &self.out {
            let with_length = plan.settings.epochs_ms.len() > 1;
            return cells::write_file(path, &outcome.rows, with_length).map_err(Failure::failed);
        }
        let store = store::open_to_add(config, plan)?;
        let [run, _] = wiring::random_words();
        write_into(&*store, plan, outcome, run, wiring::now_ms()).map_err(Failure::failed)?;
        let Some(settings) = service::sealer_settings(config) else { return Ok(()) };
        let sealed = seal_now(&settings, store.clone()).map_err(|error| {
            let later = "the store has everything; `marquee run`, or this again, fills the lake";
            Failure::Failed(format!("{error}; {later}"))
        })?;
        eprintln!("{} files, {} bytes into the lake", sealed.files, sealed.bytes);
        match service::examples_settings(config, plan) {
            Some(settings) => examples(&settings, store, inputs),
            None => Ok(()),
        }
    }
}

/// The lanes of the store that is there, or of the log that was copied: it need not be there itself.
fn lanes_of(config: &Config, plan: Plan, kept: &Alone) -> Result<Plan, Failure> {
    if config.log.kind == LogKind::Embedded {
        return Ok(plan);
    }
    let lanes = store::stored_lanes(config)?.unwrap_or_else(|| kept.lanes());
    Ok(wiring::with_lanes(plan, lanes))
}

/// Reads the files once more, for the attributes of their impressions.
fn examples(
    settings: &ExamplesSettings,
    store: Arc<dyn Store>,
    inputs: Vec<(Kind, PathBuf)>,
) -> Result<(), Failure> {
    if inputs.is_empty() {
        eprintln!("no examples were made: a backfill makes them from files only");
        return Ok(());
    }
    if inputs.iter().any(|(_, path)| path.as_os_str() == "-") {
        let words =
            "no examples were made: standard input cannot be read a second time; give files";
        eprintln!("{words}");
        return Ok(());
    }
    let made = examples_of_files(settings, store, inputs).map_err(|error| {
        let later = "the counts are stored; this again makes the examples";
        Failure::Failed(format!("{error}; {later}"))
    })?;
    eprintln!("{} examples into the lake", made.rows);
    Ok(())
}

fn failure(error: BackfillError) -> Failure {
    match error {
        // Found before anything was started.
        BackfillError::Input(marquee_sources::files::FileError::Open { .. }) => {
            Failure::Usage(error.to_string())
        }
        other => Failure::failed(other),
    }
}

/// A bar with rate and time left, on a terminal only.
fn progress_bar(is_log: bool) -> ProgressBar {
    let bar = ProgressBar::new(0);
    let template = match is_log {
        true => "{human_pos} records, {per_sec}",
        false => "{bar:30} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn show(bar: &ProgressBar, read: u64, total: Option<u64>) {
    if bar.is_hidden() {
        return;
    }
    bar.set_length(total.unwrap_or(read));
    bar.set_position(read);
}
