//! `marquee generate`: invented data, the same bytes for the same flags.

use super::{ConfigArgument, Failure};
use crate::generate::{GenerateError, Options, Summary, Topics, write_files, write_topics};
use crate::log::kafka_failure;
use crate::wiring;
use marquee_model::{parse_duration_ms, parse_time_ms};
use marquee_sources::kafka::{KafkaAppender, KafkaCluster, create_topics};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// How many requests (8 impressions each, on average)
    #[arg(long, value_name = "N")]
    requests: u64,
    /// Another seed, other data
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// First event time: RFC 3339, milliseconds since 1970, or `now` (then the span ends now)
    #[arg(long, value_name = "T", default_value = "2016-11-21T00:00:00Z")]
    start: String,
    /// Requests start within this span
    #[arg(long, value_name = "DURATION", default_value = "3h", value_parser = parse_duration_ms)]
    span: i64,
    /// Share of events that arrive too late (0.02 is 2 %)
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    late: f64,
    /// Folder for impressions.ndjson and plays.ndjson; or `kafka`: the topics of the configuration,
    /// which are created where they are missing (`./kafka` is a folder of that name)
    #[arg(long, value_name = "DIR|kafka")]
    out: PathBuf,
    /// The configuration that names brokers and topics, for `--out kafka`
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Partitions of topics that are created
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    partitions: u32,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let start_ms = match self.start.as_str() {
            "now" => (crate::wiring::now_ms() - self.span).max(0),
            time => parse_time_ms(time).map_err(|e| Failure::Usage(format!("--start: {e}")))?,
        };
        let options = Options {
            requests: self.requests,
            seed: self.seed,
            start_ms,
            span_ms: self.span,
            late_share: self.late,
        };
        let written = match self.out == Path::new("kafka") {
            true => self.to_kafka(&options)?,
            false => write_files(&options, &self.out),
        };
        let summary = written.map_err(|error| match error {
            GenerateError::Io { .. } | GenerateError::Log(_) => Failure::failed(error),
            usage => Failure::Usage(usage.to_string()),
        })?;
        let (impressions, plays) = (summary.impressions, summary.plays);
        eprintln!("{impressions} impressions and {plays} plays in {}", self.out.display());
        Ok(())
    }

    /// Writes into the topics of the configuration, as clients would.
    fn to_kafka(&self, options: &Options) -> Result<Result<Summary, GenerateError>, Failure> {
        let Some(path) = &self.config else {
            let words = "--out kafka needs -c FILE, a configuration that names brokers and topics \
                         (`--out ./kafka` writes to a folder of that name)";
            return Err(Failure::Usage(words.to_owned()));
        };
        let config = ConfigArgument { config: path.clone() }.load()?;
        let plan = wiring::plan(&config)?;
        let (brokers, properties) = (&config.log.brokers, &config.log.properties.0);
        let topics = plan.topics();
        create_topics(brokers, properties, &topics, self.partitions).map_err(kafka_failure)?;
        let cluster = KafkaCluster::connect(wiring::kafka(&config, &plan));
        let lanes = cluster.map_err(kafka_failure)?.lanes();
        let log = KafkaAppender::new(brokers, properties, &topics).map_err(kafka_failure)?;
        let to = Topics {
            log: &log,
            topics: [0, topics.len() - 1],
            lanes,
            partitioner: config.log.partitioner,
        };
        Ok(write_topics(options, &to))
    }
}
