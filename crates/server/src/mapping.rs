//! How the configured fields are called: for splitting records and for showing examples.

use marquee_expr::Type;
use marquee_model::format_time_ms;
use marquee_sources::json::{Mapping, TimeUnit};
use serde_json::{Map, Value as Json, json};

/// A record as the collector takes it, for the page's first lesson. What `where` and the filter
/// ask for besides is not known here.
pub(crate) fn example(mapping: &Mapping, time_ms: i64) -> Json {
    let time = match mapping.time_unit {
        TimeUnit::Seconds => json!(time_ms / 1000),
        TimeUnit::Milliseconds => json!(time_ms),
        TimeUnit::Microseconds => json!(time_ms.saturating_mul(1000)),
        TimeUnit::Rfc3339 => json!(format_time_ms(time_ms)),
    };
    let mut event = Json::Object(Map::new());
    put(&mut event, &mapping.request_id, json!("request-1"));
    put(&mut event, &mapping.video, json!("video-1"));
    put(&mut event, &mapping.time, time);
    for (declared, path) in mapping.attributes.iter().filter(|(declared, _)| !declared.optional) {
        let value = match declared.ty {
            Type::Int => json!(60),
            Type::Double => json!(1.5),
            Type::Bool => json!(true),
            _ => json!("text"),
        };
        put(&mut event, path, value);
    }
    let Some(list) = &mapping.explode else { return event };
    let mut record = Json::Object(Map::new());
    // The elements of a plain list have the path of the list itself.
    let element = lookup(&event, list).cloned().unwrap_or_else(|| event.clone());
    if lookup(&event, list).is_some() {
        record = event;
    }
    put(&mut record, list, json!([element]));
    record
}

/// The expression that tells the stream's records from others; empty: all are its own.
pub(crate) fn where_source(mapping: &Mapping) -> &str {
    mapping.record_filter.as_ref().map_or("", |filter| filter.source())
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

#[cfg(test)]
mod tests {
    use super::*;
    use marquee_expr::Declared;

    #[test]
    fn examples_have_the_configured_fields() {
        let path = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
        let declared = |name: &str, optional| {
            (Declared { name: name.to_owned(), ty: Type::Int, optional }, path("ctx.n"))
        };
        let mapping = Mapping {
            record_filter: None,
            explode: Some(path("items")),
            request_id: path("ctx.id"),
            video: path("items"),
            time: path("at"),
            time_unit: TimeUnit::Seconds,
            attributes: vec![declared("n", false)],
        };
        let expected = json!({
            "ctx": {"id": "request-1", "n": 60}, "items": ["video-1"], "at": 5,
        });
        assert_eq!(example(&mapping, 5000), expected);
        let plain = Mapping {
            explode: None,
            request_id: path("request_id"),
            video: path("video_id"),
            time: path("ts"),
            time_unit: TimeUnit::Milliseconds,
            attributes: vec![declared("n", true)],
            ..mapping
        };
        let expected = json!({"request_id": "request-1", "video_id": "video-1", "ts": 7});
        assert_eq!(example(&plain, 7), expected);
    }
}
