//! What a good configuration says, in one screen: the answer of `marquee check`.

use super::defaults::names::{self, name_of};
use super::value::{format_path, format_size};
use super::{
    Cassandra, Config, EpochOfPlay, Expression, Idle, JoinedImpressions, LogKind, Match, Members,
    StoreKind, Stream,
};
use marquee_model::format_duration_ms;

/// Longer expressions are cut, so that each stays one line.
const LONGEST_EXPRESSION: usize = 66;

impl Config {
    /// One screen of text, a line feed after each line: what is read, what is counted, when state
    /// goes, where the results are, what of the machine is used.
    pub fn summary(&self) -> String {
        let mut text = format!("{} is a good configuration\n", self.origin.file);
        let parts = [
            ("reads", self.reads()),
            ("counts", self.counts()),
            ("state", self.state()),
            ("stores", self.stores()),
            ("runs", self.runs()),
            ("serves", self.serves()),
        ];
        for (name, lines) in parts {
            text.push('\n');
            for (number, line) in lines.into_iter().enumerate() {
                let label = if number == 0 { name } else { "" };
                text.push_str(&format!("{label:<8}{line}\n"));
            }
        }
        text
    }

    fn reads(&self) -> Vec<String> {
        let log = &self.log;
        let mut lines = vec![match log.kind {
            LogKind::Embedded => {
                format!("the embedded log in {}, {} lanes", log.path.display(), log.lanes)
            }
            LogKind::Kafka => format!(
                "Kafka at {} as group {}, partitions by {}, {} fetched ahead",
                log.brokers,
                log.group,
                name_of(names::PARTITIONER, &log.partitioner),
                format_size(log.fetch_memory_bytes)
            ),
        }];
        if log.kind == LogKind::Kafka && !log.properties.0.is_empty() {
            let names: Vec<&str> = log.properties.0.keys().map(String::as_str).collect();
            lines.push(format!("  with {}", names.join(", ")));
        }
        lines.extend(stream_lines("impressions", &self.impressions));
        lines.extend(stream_lines("plays", &self.plays));
        lines
    }

    fn counts(&self) -> Vec<String> {
        let join = &self.join;
        let matched = match join.match_ {
            Match::RequestAndVideo => "request and video",
            Match::Request => "request",
        };
        let (within, early) =
            (format_duration_ms(join.within_ms), format_duration_ms(join.early_ms));
        let impressions = match join.impressions {
            JoinedImpressions::All => "every one",
            JoinedImpressions::Joined => "those that match a play",
        };
        let plays = match join.epoch_of_play {
            EpochOfPlay::Impression => "in the epoch and slice of each matching impression",
            EpochOfPlay::Play => "in their own epoch and slice, if an impression matches",
        };
        let epochs: Vec<String> =
            self.aggregate.epochs_ms.iter().map(|ms| format_duration_ms(*ms)).collect();
        let mut lines = vec![
            "distinct requests for each video, epoch and slice".into(),
            format!("  match        same {matched}, the play {early} before to {within} after"),
            format!("  impressions  {impressions}"),
            format!("  plays        {plays}"),
            format!("  epochs       {}", epochs.join(", ")),
            format!("  slices       {}", self.slices()),
        ];
        if !self.transform.video.is_empty() {
            lines.push(format!("  video        {}", cut(&self.transform.video)));
        }
        lines
    }

    fn slices(&self) -> String {
        let slices = &self.transform.slices;
        let name = |slice: &Vec<String>| match slice.as_slice() {
            [] => "everybody".to_owned(),
            names => names.join(" x "),
        };
        let shown: Vec<String> = slices.iter().take(6).map(name).collect();
        match slices.len() - shown.len() {
            0 => shown.join(", "),
            more => format!("{} and {more} more", shown.join(", ")),
        }
    }

    fn state(&self) -> Vec<String> {
        let join = &self.join;
        let after_ms = join.within_ms + join.early_ms + join.lateness_ms;
        let idle = match join.idle {
            Idle::After { idle_grace_ms } => {
                format!("a silent topic is waited for {}", format_duration_ms(idle_grace_ms))
            }
            Idle::Hold => "a silent topic holds it until it speaks again".into(),
        };
        vec![
            format!(
                "of an epoch goes {} after its end (within {} + early {} + lateness {}),",
                format_duration_ms(after_ms),
                format_duration_ms(join.within_ms),
                format_duration_ms(join.early_ms),
                format_duration_ms(join.lateness_ms)
            ),
            format!("  by event time as {} requests agree; {idle}", join.watermark_support),
            format!(
                "  at most {} impressions and as many plays for each request and epoch",
                grouped(join.max_facts)
            ),
            match self.snapshots.interval_ms {
                0 => "  not saved: a restart reads the log again".into(),
                ms => format!(
                    "  saved every {}: a restart reads what came after",
                    format_duration_ms(ms)
                ),
            },
        ]
    }

    fn stores(&self) -> Vec<String> {
        let store = &self.store;
        let kept = match store.retention_ms {
            Some(ms) => format!("for {}", format_duration_ms(ms)),
            None => "for ever".into(),
        };
        let what = match store.members {
            Members::All | Members::Store | Members::Both => "counts and members".to_owned(),
            Members::Lake => {
                let ms = store.members_retention_ms;
                format!("counts, and members for {},", format_duration_ms(ms))
            }
            Members::Off => "counts only".to_owned(),
        };
        let folder = store.path.display();
        if store.kind == StoreKind::Embedded {
            let mut lines = vec![format!("{what} in {folder}, kept {kept}")];
            lines.extend(self.lake());
            lines.extend(self.repairs());
            return lines;
        }
        let Cassandra { nodes, keyspace, consistency, tls, .. } = &store.cassandra;
        let consistency = name_of(names::CONSISTENCY, consistency);
        let tls = if tls.is_some() { ", by TLS" } else { "" };
        let mut lines = vec![
            format!("{what} in Cassandra's keyspace {keyspace}, kept {kept}"),
            format!("  at {nodes} with {consistency}{tls}"),
            format!("  letters, snapshots and state on disk in {folder}"),
        ];
        lines.extend(self.lake());
        lines.extend(self.repairs());
        lines
    }

    fn lake(&self) -> Vec<String> {
        let Some(place) = &self.lake.place else { return Vec::new() };
        let span_ms = self.lake.file_span_ms.max(self.aggregate.longest_ms());
        let deltas = match self.lake.deltas_ms {
            0 => String::new(),
            ms => format!(", open ones every {}", format_duration_ms(ms)),
        };
        let mut lines = vec![format!(
            "closed epochs as Parquet in the lake {place}, files of {} or {}{deltas}",
            format_duration_ms(span_ms),
            format_size(self.lake.file_bytes)
        )];
        if self.lake.examples {
            let share = match self.lake.negatives_ppm {
                1_000_000 => "all impressions".to_owned(),
                ppm => format!("plays and {} % of other impressions", f64::from(ppm) / 1e4),
            };
            lines.push(format!("  training examples of {share}"));
        }
        if self.lake.events {
            let every = format_duration_ms(self.lake.events_interval_ms);
            lines.push(format!("  raw events, a file for each lane and {every}"));
        }
        lines
    }

    fn repairs(&self) -> Option<String> {
        let (interval_ms, horizon_ms) = (self.repair.interval_ms, self.repair.horizon_ms);
        (interval_ms > 0).then(|| {
            format!(
                "  every {} what closed epochs of the last {} lack is added from the log",
                format_duration_ms(interval_ms),
                format_duration_ms(horizon_ms)
            )
        })
    }

    fn runs(&self) -> Vec<String> {
        let runtime = &self.runtime;
        let threads = match runtime.threads {
            0 => "one thread for each core".into(),
            1 => "one thread".into(),
            threads => format!("{threads} threads"),
        };
        vec![format!(
            "{threads}, batches of {} or {} events, {} of memory",
            format_duration_ms(runtime.batch_interval_ms),
            grouped(runtime.batch_events),
            format_size(runtime.memory_bytes)
        )]
    }

    fn serves(&self) -> Vec<String> {
        let max_body = format_size(self.collector.max_body_bytes);
        vec![format!("http://{}, events in bodies of up to {max_body}", self.http.listen)]
    }
}

fn stream_lines(kind: &str, stream: &Stream) -> Vec<String> {
    let path = |keys: &[String]| format_path(keys);
    let mut lines = vec![format!(
        "  {kind:<11}  topic {}: {}, {}, {} ({})",
        stream.topic,
        path(&stream.request_id),
        path(&stream.video),
        path(&stream.time),
        name_of(names::TIME_UNIT, &stream.time_unit)
    )];
    let mut detail = |name: &str, text: String| lines.push(format!("{:15}{name} {text}", ""));
    if !stream.where_.is_empty() {
        detail("where", cut(&stream.where_));
    }
    if let Some(list) = &stream.explode {
        detail("one event for each element of", path(list));
    }
    if !stream.filter.is_empty() {
        detail("if", cut(&stream.filter));
    }
    lines
}

/// An expression on one line.
fn cut(expression: &Expression) -> String {
    let line = expression.source.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST_EXPRESSION) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// A number with commas between thousands.
fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
