//! From the configuration to the parts that do the work: names are compiled to plans, and every
//! expression that is wrong becomes a fault with its line.

use crate::commands::Failure;
use crate::config::{
    AttributeType, Config, EpochOfPlay, Expression, Fault, Idle, JoinedImpressions, LogKind, Match,
    Stream, TimeUnit,
};
use marquee_expr::{Declared, ExprError, RecordPredicate, Type};
use marquee_model::Kind;
use marquee_pipeline::Settings;
use marquee_pipeline::prepare;
use marquee_pipeline::settings as pipeline;
use marquee_runtime::lanes::LanesSettings;
use marquee_runtime::{Plan, StreamPlan};
use marquee_server::{Annotations, ClientLimits, CollectorSettings, OpsSettings, RankSettings};
use marquee_sources::json::{self, Decoder, Mapping};
use marquee_sources::kafka::KafkaOptions;
use std::sync::Arc;

/// Compiles a configuration. All faults of its expressions are reported together.
pub fn plan(config: &Config) -> Result<Plan, Failure> {
    let mut faults = Vec::new();
    let impressions = stream_plan(config, Kind::Impression, &mut faults);
    let plays = stream_plan(config, Kind::Play, &mut faults);
    let (Some(impressions), Some(plays)) = (impressions, plays) else {
        // The transform is compiled for both streams: what is wrong in both is said once.
        faults.sort_by(|a, b| (a.line, &a.key, &a.found).cmp(&(b.line, &b.key, &b.found)));
        faults.dedup_by(|a, b| a.key == b.key && a.found == b.found);
        return Err(Failure::Config(faults));
    };
    Ok(Plan {
        impressions,
        plays,
        settings: settings(config),
        max_ahead_ms: config.join.max_ahead_ms,
        lanes: config.log.lanes,
        uses_keys: config.uses_keys(),
        partitioner: config.log.partitioner_in_force(),
        fingerprint: config.fingerprint_settings(),
    })
}

/// A plan for a log whose number of lanes is not in the configuration: that of Kafka.
pub fn with_lanes(plan: Plan, lanes: u32) -> Plan {
    let mut fingerprint = plan.fingerprint;
    fingerprint["lanes"] = lanes.into();
    Plan { lanes, fingerprint, ..plan }
}

/// How much of `[runtime] memory` the states of the lanes may take, bytes: what the rest of a
/// service does not need, but at least a quarter.
pub fn state_bytes(config: &Config) -> u64 {
    /// Code, threads, the embedded store's caches and tables, and batches on their way, as measured
    /// (docs/performance.md).
    const REST: u64 = 256 << 20;
    let fetched = match config.log.kind {
        LogKind::Embedded => 0,
        LogKind::Kafka => config.log.fetch_memory_bytes,
    };
    let memory = config.runtime.memory_bytes;
    // The sealer has one file in memory, and the members that go into it.
    let lake = match config.lake.place {
        Some(_) => {
            // A file of raw events on its way there takes as much.
            let files = 1 + u64::from(config.lake.events);
            files * config.lake.file_bytes + sealer_bytes(config)
        }
        None => 0,
    };
    memory.saturating_sub(REST + fetched + lake).max(memory / 4)
}

/// Who may send events, and how much.
pub fn collector_settings(config: &Config) -> CollectorSettings {
    let of = &config.collector;
    CollectorSettings {
        allowed_origins: of.allowed_origins.clone(),
        token: of.token.0.clone(),
        require_signed: of.require_signed,
        limits: ClientLimits {
            rate: of.client_rate,
            video_events: of.client_video_events,
            header: of.client_header.clone(),
        },
    }
}

/// How ranking is set up.
pub fn rank_settings(config: &Config) -> RankSettings {
    let of = &config.rank;
    RankSettings {
        token: of.token.0.clone(),
        keys: of.keys.iter().map(|key| key.0.clone()).collect(),
        expires_ms: of.expires_ms,
        horizon_ms: of.horizon_ms,
        prior: f64::from(of.prior),
    }
}

/// The operator's page of a process that begins now.
pub fn ops_settings(config: &Config, plan: &Plan) -> OpsSettings {
    let version = env!("CARGO_PKG_VERSION");
    let settings = LanesSettings::name_of(plan);
    OpsSettings {
        token: config.http.token.0.clone(),
        allowed_hosts: config.http.allowed_hosts.clone(),
        // Names are allowed for who comes from elsewhere, through a proxy.
        is_public: !config.http.listen.ip().is_loopback() || !config.http.allowed_hosts.is_empty(),
        batch_interval_ms: config.runtime.batch_interval_ms,
        annotations: Arc::new(Annotations::begin(
            &config.store.path.join("annotations.ndjson"),
            &format!("marquee {version}, settings {}", &settings[..8]),
            now_ms(),
        )),
    }
}

/// Members of epochs that ended before this time may have gone from the store, milliseconds since 1970
/// UTC; `None`: none have.
pub fn forgotten_before_ms(config: &Config) -> Option<i64> {
    config.store.members_go_after_ms().map(|after_ms| now_ms() - after_ms)
}

/// How much of `[runtime] memory` the members may take that are on their way into the lake, bytes.
pub fn sealer_bytes(config: &Config) -> u64 {
    (config.runtime.memory_bytes / 16).clamp(4 << 20, 256 << 20)
}

/// After how many events of a lane a batch ends: as many as configured, and fewer where they could
/// take more than an eighth of `[runtime] memory` until they are written.
pub fn batch_events(config: &Config, plan: &Plan) -> usize {
    /// What an event takes until then: its members, and their bytes on the way into the store.
    const EVENT_BYTES: u64 = 150;
    let lanes = u64::from(plan.lanes.max(1));
    let fit = config.runtime.memory_bytes / 8 / EVENT_BYTES / lanes;
    u64::from(config.runtime.batch_events).min(fit.max(1000)) as usize
}

/// Which Kafka the configuration names.
pub fn kafka(config: &Config, plan: &Plan) -> KafkaOptions {
    let section = |topic: String| {
        let section = if topic == config.impressions.topic { Kind::Impression } else { Kind::Play };
        (topic, section.plural())
    };
    KafkaOptions {
        brokers: config.log.brokers.clone(),
        group: config.log.group.clone(),
        properties: config.log.properties.0.clone(),
        topics: plan.topics().into_iter().map(section).collect(),
        with_headers: config.uses_headers(),
        fetch_memory_bytes: config.log.fetch_memory_bytes,
    }
}

fn settings(config: &Config) -> Settings {
    let join = &config.join;
    Settings {
        match_: match join.match_ {
            Match::RequestAndVideo => pipeline::Match::RequestAndVideo,
            Match::Request => pipeline::Match::Request,
        },
        impressions: match join.impressions {
            JoinedImpressions::All => pipeline::Impressions::All,
            JoinedImpressions::Joined => pipeline::Impressions::Joined,
        },
        epoch_of_play: match join.epoch_of_play {
            EpochOfPlay::Impression => pipeline::EpochOfPlay::Impression,
            EpochOfPlay::Play => pipeline::EpochOfPlay::Play,
        },
        within_ms: join.within_ms,
        early_ms: join.early_ms,
        lateness_ms: join.lateness_ms,
        idle: match join.idle {
            Idle::After { idle_grace_ms } => pipeline::Idle::After(idle_grace_ms),
            Idle::Hold => pipeline::Idle::Hold,
        },
        watermark_support: join.watermark_support as usize,
        max_facts: join.max_facts,
        epochs_ms: config.aggregate.epochs_ms.clone(),
        groupings: config.transform.slices.len(),
    }
}

/// `None` where there are faults.
fn stream_plan(config: &Config, kind: Kind, faults: &mut Vec<Fault>) -> Option<StreamPlan> {
    let stream = config.stream(kind);
    let section = kind.plural();
    let before = faults.len();
    let mut fault = |key: String, expression: &Expression, error: ExprError| {
        let found = format!("{} ({error})", shown(&expression.source));
        faults.push(config.fault_at(
            expression.line,
            &key,
            &found,
            "an expression in CEL",
            example(&key),
        ));
    };
    let declared: Vec<Declared> = stream.attributes.iter().map(declared).collect();
    let environment = prepare::environment(&declared);
    let record_filter = optional(&stream.where_, RecordPredicate::compile).unwrap_or_else(|e| {
        fault(format!("{section}.where"), &stream.where_, e);
        None
    });
    if let Err(e) = optional(&stream.filter, |source| environment.predicate(source)) {
        fault(format!("{section}.filter"), &stream.filter, e);
    }
    let video = &config.transform.video;
    if let Err(e) = optional(video, |source| environment.text(source)) {
        fault("transform.video".to_owned(), video, e);
    }
    if faults.len() > before {
        return None;
    }
    let by_slice = kind == Kind::Impression || config.join.epoch_of_play == EpochOfPlay::Play;
    let slices = &config.transform.slices;
    let compiled = prepare::Stream::new(
        kind,
        &declared,
        &stream.filter.source,
        &video.source,
        slices,
        by_slice,
    );
    match compiled {
        Ok(compiled) => Some(StreamPlan {
            decoder: Decoder::new(mapping(stream, record_filter, declared)),
            stream: compiled,
            topic: stream.topic.clone(),
        }),
        Err(error) => {
            let line = config.line_of(section);
            faults.push(config.fault_at(
                line,
                section,
                &error.to_string(),
                "settings that fit",
                "",
            ));
            None
        }
    }
}

/// An expression in one line, cut where it is long.
fn shown(source: &str) -> String {
    let line = source.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(200) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

fn optional<T>(
    expression: &Expression,
    compile: impl FnOnce(&str) -> Result<T, ExprError>,
) -> Result<Option<T>, ExprError> {
    (!expression.is_empty()).then(|| compile(&expression.source)).transpose()
}

fn example(key: &str) -> &'static str {
    match key {
        "transform.video" => r#"show == null ? video : show"#,
        "impressions.where" | "plays.where" => r#"kind == "play""#,
        _ => r#"device != "console""#,
    }
}

fn declared(attribute: &crate::config::Attribute) -> Declared {
    let ty = match attribute.ty {
        AttributeType::String => Type::String,
        AttributeType::Int => Type::Int,
        AttributeType::Double => Type::Double,
        AttributeType::Bool => Type::Bool,
    };
    Declared { name: attribute.name.clone(), ty, optional: attribute.optional }
}

fn mapping(
    stream: &Stream,
    record_filter: Option<RecordPredicate>,
    declared: Vec<Declared>,
) -> Mapping {
    let paths = stream.attributes.iter().map(|attribute| attribute.path.clone());
    Mapping {
        record_filter,
        explode: stream.explode.clone(),
        request_id: stream.request_id.clone(),
        video: stream.video.clone(),
        time: stream.time.clone(),
        time_unit: match stream.time_unit {
            TimeUnit::S => json::TimeUnit::Seconds,
            TimeUnit::Ms => json::TimeUnit::Milliseconds,
            TimeUnit::Us => json::TimeUnit::Microseconds,
            TimeUnit::Rfc3339 => json::TimeUnit::Rfc3339,
        },
        attributes: declared.into_iter().zip(paths).collect(),
    }
}

/// Threads to use: as configured, or one for each core.
pub fn threads(config: &Config) -> usize {
    match config.runtime.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads as usize,
    }
}

/// 16 random bytes from the system.
pub fn secret() -> [u8; 16] {
    let mut secret = [0; 16];
    getrandom::fill(&mut secret).expect("the system gives random bytes");
    secret
}

/// Two random words from the system.
pub fn random_words() -> [u64; 2] {
    let secret = u128::from_le_bytes(secret());
    [secret as u64, (secret >> 64) as u64]
}

/// The time of this machine, milliseconds since 1970 UTC.
pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}
