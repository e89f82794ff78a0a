//! How the configured fields are called: for splitting records and for showing examples.
//!
//! The decoder keeps its mapping to itself, so the names are read from the plan's fingerprint,
//! which spells out every one of them.

use marquee_model::{Kind, format_time_ms};
use serde_json::{Map, Value as Json, json};

/// Names of the fields of both streams.
#[derive(Debug)]
pub(crate) struct Mappings {
    impressions: Mapping,
    plays: Mapping,
}

/// Names of the fields of one stream.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// The expression that tells the stream's records from others; empty: all are its own.
    pub(crate) where_source: String,
    /// Path of the list whose elements are the events.
    pub(crate) explode: Option<Vec<String>>,
    request_id: Vec<String>,
    video: Vec<String>,
    time: Vec<String>,
    time_unit: String,
    /// Path and type of each required attribute.
    required: Vec<(Vec<String>, String)>,
}

impl Mappings {
    /// Reads the names from the fingerprint of a plan. What is missing there has its default.
    pub(crate) fn of(fingerprint: &Json) -> Self {
        Mappings {
            impressions: Mapping::of(&fingerprint["impressions"]),
            plays: Mapping::of(&fingerprint["plays"]),
        }
    }

    pub(crate) fn of_kind(&self, kind: Kind) -> &Mapping {
        match kind {
            Kind::Impression => &self.impressions,
            Kind::Play => &self.plays,
        }
    }
}

impl Mapping {
    fn of(settings: &Json) -> Self {
        let text =
            |name: &str, default: &str| settings[name].as_str().unwrap_or(default).to_owned();
        let path = |name: &str, default: &str| parse_path(&text(name, default));
        let explode = text("explode", "");
        let attributes = settings["attributes"].as_object().into_iter().flatten();
        let required = attributes
            .filter(|(_, attribute)| attribute["optional"] == json!(false))
            .map(|(name, attribute)| {
                let path = parse_path(attribute["path"].as_str().unwrap_or(name));
                (path, attribute["type"].as_str().unwrap_or("string").to_owned())
            });
        Mapping {
            where_source: text("where", ""),
            explode: (!explode.is_empty()).then(|| parse_path(&explode)),
            request_id: path("request_id", "request_id"),
            video: path("video", "video_id"),
            time: path("time", "ts"),
            time_unit: text("time_unit", "ms"),
            required: required.collect(),
        }
    }

    /// A record as the collector takes it, for the page's first lesson. What `where` and the
    /// filter ask for besides is not known here.
    pub(crate) fn example(&self, time_ms: i64) -> Json {
        let time = match &*self.time_unit {
            "s" => json!(time_ms / 1000),
            "us" => json!(time_ms.saturating_mul(1000)),
            "rfc3339" => json!(format_time_ms(time_ms)),
            _ => json!(time_ms),
        };
        let mut event = Json::Object(Map::new());
        put(&mut event, &self.request_id, json!("request-1"));
        put(&mut event, &self.video, json!("video-1"));
        put(&mut event, &self.time, time);
        for (path, ty) in &self.required {
            let value = match &**ty {
                "int" => json!(60),
                "double" => json!(1.5),
                "bool" => json!(true),
                _ => json!("text"),
            };
            put(&mut event, path, value);
        }
        let Some(list) = &self.explode else { return event };
        let mut record = Json::Object(Map::new());
        // The elements of a plain list have the path of the list itself.
        let element = lookup(&event, list).cloned().unwrap_or_else(|| event.clone());
        if lookup(&event, list).is_some() {
            record = event;
        }
        put(&mut record, list, json!([element]));
        record
    }
}

/// The value at a path of a record.
pub(crate) fn lookup<'j>(tree: &'j Json, path: &[String]) -> Option<&'j Json> {
    path.iter().try_fold(tree, |tree, name| tree.as_object()?.get(name))
}

/// The same, to be changed.
pub(crate) fn lookup_mut<'j>(tree: &'j mut Json, path: &[String]) -> Option<&'j mut Json> {
    path.iter().try_fold(tree, |tree, name| tree.as_object_mut()?.get_mut(name))
}

fn put(record: &mut Json, path: &[String], value: Json) {
    let mut place = record;
    for name in path {
        if !place.is_object() {
            *place = Json::Object(Map::new());
        }
        place = &mut place[name];
    }
    *place = value;
}

/// Keys with dots between them; a backslash stands before a dot or a backslash that is part of a
/// key (docs/configuration.md).
fn parse_path(text: &str) -> Vec<String> {
    let mut keys = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let key = keys.last_mut().expect("there is always a last key");
        match character {
            '\\' => key.extend(characters.next()),
            '.' => keys.push(String::new()),
            other => key.push(other),
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_examples() {
        assert_eq!(parse_path(r"a\.b.c\\"), ["a.b", r"c\"]);
        let settings = json!({"impressions": {
            "request_id": "ctx.id", "video": "items", "time": "at", "time_unit": "s",
            "explode": "items",
            "attributes": {"n": {"path": "ctx.n", "type": "int", "optional": false}},
        }});
        let mappings = Mappings::of(&settings);
        let example = mappings.of_kind(Kind::Impression).example(5000);
        let expected = json!({
            "ctx": {"id": "request-1", "n": 60}, "items": ["video-1"], "at": 5,
        });
        assert_eq!(example, expected);
        let plain = mappings.of_kind(Kind::Play).example(7);
        assert_eq!(plain, json!({"request_id": "request-1", "video_id": "video-1", "ts": 7}));
    }
}
