//! `GET /v1/status`: how the lanes are doing, for pages and tests.
//!
//! It is made for the pages of this server and changes with them, without notice. Programs read `/metrics`.

use crate::app::App;
use crate::mapping;
use axum::Json;
use axum::extract::State;
use marquee_model::Kind;
use marquee_pipeline::lane::Counters;
use marquee_runtime::status::LaneStatus;
use marquee_sinks::lake::LakeNumbers;
use serde_json::{Value, json};
use std::sync::Arc;

/// The lanes, their sums, and how a first event looks.
pub(crate) async fn status(State(app): State<Arc<App>>) -> Json<Value> {
    let mut lanes = app.status.lanes();
    lanes.retain(|lane| lane.held);
    let reasons = app.reasons_not_ready();
    let now_ms = (app.clock)();
    let sum = |of: fn(&Counters) -> u64| lanes.iter().map(|lane| of(&lane.counters)).sum::<u64>();
    // The slowest lane is what readers of all of them have to wait for.
    let watermarks: Option<Vec<i64>> = lanes.iter().map(|lane| lane.watermark_ms).collect();
    let example = |kind| {
        let stream = app.plan.stream(kind).decoder.mapping();
        let (record, filter) = (mapping::example(stream, now_ms), mapping::where_source(stream));
        json!({ "record": record, "where": filter })
    };
    Json(json!({
        "unstable": true,
        "now_ms": now_ms,
        "ready": reasons.is_empty(),
        "reasons": reasons,
        "generation": app.store.generation().id,
        "epochs_ms": app.store.generation().epochs_ms(),
        "watermark_ms": watermarks.and_then(|all| all.into_iter().min()),
        "lag": lanes.iter().map(LaneStatus::lag).sum::<u64>(),
        "totals": {
            "events": sum(|counters| counters.events),
            "filtered": sum(|counters| counters.filtered),
            "dead": sum(|counters| counters.dead),
            "late": sum(|counters| counters.late),
            "duplicates": sum(|counters| counters.duplicates),
        },
        "lanes": lanes.iter().map(|lane| lane_json(&app, lane)).collect::<Vec<_>>(),
        "examples": app.status.examples().map(|made| json!({
            "rows": made.rows,
            "corrections": made.corrections,
            "stretches": made.stretches,
            "cut": made.cut,
            "waiting": made.waiting,
            "failures": made.failures,
        })),
        "archive": app.status.archive().map(|kept| json!({
            "files": kept.files,
            "records": kept.records,
            "bytes": kept.bytes,
            "refused": kept.refused,
            "lost": kept.lost,
            "waiting": kept.waiting,
            "failures": kept.failures,
        })),
        "lake": app.lake.as_ref().map(|lake| lake_json(&lake.numbers())),
        "first": {
            "impressions": example(Kind::Impression),
            "plays": example(Kind::Play),
        },
    }))
}

fn lake_json(lake: &LakeNumbers) -> Value {
    json!({
        "place": lake.place,
        "words": lake.words(),
        "waiting": lake.waiting,
        "waiting_from_ms": lake.waiting_from_ms,
        "looks": lake.looks,
        "sealed": lake.sealed,
        "rewritten": lake.rewritten,
        "files": lake.files,
        "bytes": lake.bytes,
        "delta_files": lake.delta_files,
        "delta_bytes": lake.delta_bytes,
        "letter_files": lake.letter_files,
        "letter_bytes": lake.letter_bytes,
        "failures": lake.failures,
        "trouble": lake.trouble.as_ref().map(|trouble| json!({
            "since_ms": trouble.since_ms,
            "tries": trouble.tries,
            "error": trouble.error,
        })),
    })
}

/// By topic: everything before is counted.
pub(crate) fn next_offsets(app: &App, lane: &LaneStatus) -> Value {
    let names = app.plan.topics().into_iter();
    names.zip(&lane.next_offsets).map(|(name, next)| (name, json!(next))).collect()
}

fn lane_json(app: &App, lane: &LaneStatus) -> Value {
    json!({
        "lane": lane.lane,
        "ready": !lane.rebuilding,
        "lag": lane.lag(),
        "watermark_ms": lane.watermark_ms,
        "frontier_ms": lane.frontier_ms,
        "events": lane.counters.events,
        "next_offsets": next_offsets(app, lane),
        "open_cells": lane.open_cells,
        "state_bytes": lane.state_bytes,
        "state_disk_bytes": lane.state_disk_bytes,
    })
}
