//! The checks that take more than one key.

use super::defaults::names;
use super::value::identifiers;
use super::walk::shown;
use super::{Config, EpochOfPlay, Fault, LakePlace, LogKind, Members};
use marquee_model::format_duration_ms;

/// An event counts in at most this many cells.
const MAX_FAN_OUT: usize = 64;

/// Faults between the keys of a configuration. `earlier` are those of single keys: a key that has
/// one is not judged again, in neither stream, or one mistake would be reported twice.
pub(super) fn faults(config: &Config, earlier: &[Fault]) -> Vec<Fault> {
    let checks = [
        shared_topic,
        undeclared_slices,
        fan_out,
        other_types,
        retention,
        folders,
        log_names,
        lake,
        signed,
    ];
    let mut faults: Vec<Fault> = checks.into_iter().flat_map(|check| check(config)).collect();
    let in_section = |fault: &Fault| match fault.key.split_once('.') {
        Some((_, key)) => key.to_owned(),
        None => fault.key.clone(),
    };
    let earlier: Vec<String> = earlier.iter().map(in_section).collect();
    faults.retain(|fault| !earlier.iter().any(|key| key.starts_with(&in_section(fault))));
    faults
}

/// Two kinds in one topic are told apart by `where`; without it each record is read as both.
fn shared_topic(config: &Config) -> Vec<Fault> {
    let streams = [("impressions", &config.impressions), ("plays", &config.plays)];
    if config.impressions.topic != config.plays.topic {
        return Vec::new();
    }
    let lacking = streams.into_iter().filter(|(_, stream)| stream.where_.is_empty());
    lacking
        .map(|(kind, stream)| {
            let key = format!("{kind}.where");
            let found = format!("none, while both kinds share the topic {}", shown(&stream.topic));
            let expected = "an expression that picks the records of this kind";
            let example = format!("'kind == \"{}\"'", kind.trim_end_matches('s'));
            config
                .fault(&key, &found, expected, &example)
                .with_hint("otherwise every record is read as an impression and as a play")
        })
        .collect()
}

/// Nobody can send a code that nobody has signed.
fn signed(config: &Config) -> Vec<Fault> {
    if !config.collector.require_signed || !config.rank.keys.is_empty() {
        return Vec::new();
    }
    let (found, expected) =
        ("true without [rank] keys", "keys that tiles are signed with, or false");
    let fault = config.fault("collector.require_signed", found, expected, "false");
    vec![
        fault
            .with_hint("set [rank] keys, or MARQUEE_RANK_KEYS, to what `/v1/rank` shall sign with"),
    ]
}

/// The streams whose attributes slices are made of: a play that counts in its impressions' cells
/// needs none of its own.
fn undeclared_slices(config: &Config) -> Vec<Fault> {
    let mut streams = vec![("impressions", &config.impressions)];
    if config.join.epoch_of_play == EpochOfPlay::Play {
        streams.push(("plays", &config.plays));
    }
    let mut faults = Vec::new();
    for (kind, stream) in streams {
        for name in sliced(config) {
            if stream.attribute(name).is_none() {
                let expected = format!("an attribute declared in [{kind}]");
                let example = format!("attributes = {{ {name} = \"string?\" }}");
                faults.push(config.fault("transform.slices", &shown(name), &expected, &example));
            }
        }
    }
    faults
}

/// The names of all attributes in slices, each once.
fn sliced(config: &Config) -> Vec<&str> {
    let mut names: Vec<&str> =
        config.transform.slices.iter().flatten().map(String::as_str).collect();
    names.sort();
    names.dedup();
    names
}

fn fan_out(config: &Config) -> Vec<Fault> {
    let (slices, epochs) = (config.transform.slices.len(), config.aggregate.epochs_ms.len());
    if slices * epochs <= MAX_FAN_OUT {
        return Vec::new();
    }
    let found = format!("{slices} slices x {epochs} lengths of epochs");
    let expected = format!("at most {MAX_FAN_OUT} cells for each event");
    vec![
        config
            .fault("transform.slices", &found, &expected, "")
            .with_hint("count fewer slices, or fewer lengths of epochs"),
    ]
}

/// An attribute of two types cannot name one slice, nor stand in an expression over both kinds.
fn other_types(config: &Config) -> Vec<Fault> {
    let in_transform = identifiers(&config.transform.video.source);
    let sliced = sliced(config);
    let mut faults = Vec::new();
    for play in &config.plays.attributes {
        let used = [&in_transform, &sliced].iter().any(|names| names.contains(&play.name.as_str()));
        let impression = config.impressions.attribute(&play.name);
        if let Some(impression) = impression.filter(|other| used && other.ty != play.ty) {
            let key = format!("plays.attributes.{}", play.name);
            let (found, type_name) = (shown(play.ty.name()), impression.ty.name());
            let expected = format!("{type_name:?} as in [impressions], since [transform] uses it");
            faults.push(config.fault(&key, &found, &expected, ""));
        }
    }
    faults
}

/// A cell that may still get members must not be dropped.
fn retention(config: &Config) -> Vec<Fault> {
    let join = &config.join;
    let horizon_ms =
        config.aggregate.longest_ms() + join.within_ms + join.early_ms + join.lateness_ms;
    let Some(kept_ms) = config.store.retention_ms.filter(|kept_ms| *kept_ms < horizon_ms) else {
        return Vec::new();
    };
    let found = shown(&format_duration_ms(kept_ms));
    let horizon = format_duration_ms(horizon_ms);
    let expected = format!("at least {horizon} (longest epoch + within + early + lateness)");
    let hint = "a shorter one would drop cells that still change; \"\" keeps them for ever";
    vec![config.fault("store.retention", &found, &expected, "\"30d\"").with_hint(hint)]
}

/// Log and store are two databases, and each wants its folder for itself.
fn folders(config: &Config) -> Vec<Fault> {
    if config.log.kind != LogKind::Embedded || config.log.path != config.store.path {
        return Vec::new();
    }
    let found = "the folder of the log";
    vec![config.fault("store.path", found, "a folder of its own", "\"data/store\"")]
}

/// A bucket is asked without TLS only where that was said, and with a whole key or with none.
fn lake(config: &Config) -> Vec<Fault> {
    let mut faults = Vec::new();
    match &config.lake.place {
        Some(LakePlace::S3(s3)) => {
            if s3.endpoint.starts_with("http://") && !s3.allow_http {
                let expected = "https://, or allow_http = true";
                faults.push(config.fault("lake.endpoint", &shown(&s3.endpoint), expected, ""));
            }
            if s3.access_key_id.is_empty() != s3.secret_access_key.is_empty() {
                let found = "a key without its other half";
                let expected = "access_key_id and secret_access_key, or neither";
                let hint = "without them AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are used";
                let fault = config.fault("lake.access_key_id", found, expected, "");
                faults.push(fault.with_hint(hint));
            }
        }
        Some(LakePlace::Folder(folder)) => {
            let others = [("store", &config.store.path), ("log", &config.log.path)];
            if let Some((name, _)) = others.into_iter().find(|(_, other)| *other == folder) {
                let found = format!("the folder of the {name}");
                let expected = "a folder of its own";
                faults.push(config.fault("lake.url", &found, expected, "\"file:data/lake\""));
            }
        }
        None if config.lake.examples => {
            let hint = "examples are rows in the lake: [lake] url says where it is";
            let fault = config.fault("lake.examples", "true", "false, or a lake", "");
            faults.push(fault.with_hint(hint));
        }
        None => {}
    }
    if config.lake.place.is_none() && config.lake.events {
        let hint = "raw events are kept in the lake: [lake] url says where it is";
        let fault = config.fault("lake.events", "true", "false, or a lake", "");
        faults.push(fault.with_hint(hint));
    }
    faults.extend(members(config));
    faults
}

/// Members that are in the lake alone must come to it, and stay in the store until repairs are done.
fn members(config: &Config) -> Vec<Fault> {
    let (store, members) = (&config.store, config.store.members);
    if config.lake.place.is_none() && matches!(members, Members::Lake | Members::Both) {
        let name = names::name_of(names::MEMBERS, &members);
        let hint = "without [lake] url there is no lake to keep them in";
        let fault =
            config.fault("store.members", &shown(name), "\"store\" or \"off\"", "\"store\"");
        return vec![fault.with_hint(hint)];
    }
    if members != Members::Lake {
        return Vec::new();
    }
    let horizon_ms = match config.repair.interval_ms {
        0 => 0,
        _ => config.repair.horizon_ms,
    };
    let least_ms = horizon_ms.max(config.lake.file_span_ms.max(config.aggregate.longest_ms()));
    if store.members_retention_ms >= least_ms {
        return Vec::new();
    }
    let found = shown(&format_duration_ms(store.members_retention_ms));
    let least = format_duration_ms(least_ms);
    let expected =
        format!("at least {least} ([repair] horizon, and a stretch of [lake] file_span)");
    let hint = "what the store has let go neither repairs nor the lake can have of it";
    let example = format!("\"{}\"", format_duration_ms(least_ms.max(48 * 3_600_000)));
    vec![config.fault("store.members_retention", &found, &expected, &example).with_hint(hint)]
}

/// Topics of the embedded log are folders beside the log's own files.
fn log_names(config: &Config) -> Vec<Fault> {
    if config.log.kind != LogKind::Embedded {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for (section, stream) in [("impressions", &config.impressions), ("plays", &config.plays)] {
        let topic = &stream.topic;
        let is_taken = topic == "lock" || topic.starts_with("marquee-log");
        if topic.len() > 200 || topic.starts_with('.') || is_taken {
            let expected = "at most 200 characters, no dot in front, not `lock` or `marquee-log` \
                            (in the embedded log a topic is a folder)";
            let key = format!("{section}.topic");
            faults.push(config.fault(&key, &shown(topic), expected, "\"plays\""));
        }
    }
    faults
}
