//! `/metrics`: what the lanes and the collector say of themselves, for Prometheus.
//!
//! Everything about lanes is taken from the status board when somebody asks. Its counters are
//! functions of log positions (invariant HONEST), so they survive a restart and a replay does not
//! inflate them; work done again is `marquee_replayed_records_total`.

mod format;
mod lake;

use crate::app::App;
use crate::collector::{Refused, Tally};
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use marquee_model::Kind;
use marquee_pipeline::lane::Counters;
use marquee_runtime::status::LaneStatus;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

type Labels = Vec<(&'static str, String)>;
/// Gauges are counts, bytes or seconds: a double holds them all.
type Number = Gauge<f64, AtomicU64>;

/// What the collector counts since the process started.
#[derive(Debug, Default)]
pub(crate) struct CollectorMetrics {
    requests: Family<Labels, Counter>,
    items: Family<Labels, Counter>,
    events: Family<Labels, Counter>,
    refused: Family<Labels, Counter>,
}

impl CollectorMetrics {
    /// A request was answered.
    pub(crate) fn answered(&self, kind: Kind, code: StatusCode) {
        let labels = vec![("kind", kind.plural().to_owned()), ("code", code.as_str().to_owned())];
        self.requests.get_or_create(&labels).inc();
    }

    /// What was seen of codes and limits in the events of a body.
    pub(crate) fn looked_at(&self, kind: Kind, tally: Tally) {
        let count = |family: &Family<Labels, Counter>, name, value: &str, count: u64| {
            let labels = vec![("kind", kind.plural().to_owned()), (name, value.to_owned())];
            family.get_or_create(&labels).inc_by(count);
        };
        count(&self.events, "signed", "yes", tally.signed);
        count(&self.events, "signed", "no", tally.unsigned);
        for (reason, refused) in Refused::NAMES.into_iter().zip(tally.refused) {
            count(&self.refused, "reason", reason, refused);
        }
    }

    /// The items of a body were judged, and what was accepted is durable.
    pub(crate) fn judged(&self, kind: Kind, accepted: u64, rejected: u64) {
        for (outcome, count) in [("accepted", accepted), ("rejected", rejected)] {
            let labels = vec![("kind", kind.plural().to_owned()), ("outcome", outcome.to_owned())];
            self.items.get_or_create(&labels).inc_by(count);
        }
    }
}

/// Writes all metrics: as OpenMetrics for those who ask for it, in Prometheus' older text format
/// for everybody else.
pub(crate) async fn scrape(State(app): State<Arc<App>>, headers: HeaderMap) -> impl IntoResponse {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry(&app))
        .expect("a String takes all that is written");
    if accept.contains("application/openmetrics-text") {
        let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        return ([(CONTENT_TYPE, content_type)], text);
    }
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(CONTENT_TYPE, content_type)], format::classic(&text))
}

fn registry(app: &App) -> Registry {
    let mut registry = Registry::with_prefix("marquee");
    let mut lanes = app.status.lanes();
    whole(&mut registry, app);
    held(&mut registry, &lanes);
    // What another process of the group says of its lanes is not ours to say.
    lanes.retain(|lane| lane.held);
    positions(&mut registry, app, &lanes);
    state(&mut registry, &lanes);
    counters(&mut registry, &lanes);
    work(&mut registry, &lanes);
    repair(&mut registry, app);
    examples(&mut registry, app);
    archive(&mut registry, app);
    collector(&mut registry, app);
    if let Some(lake) = &app.lake {
        lake::register(&mut registry, &lake.numbers());
    }
    registry
}

fn whole(registry: &mut Registry, app: &App) {
    let gauge = |is: bool| {
        let gauge = Number::default();
        gauge.set(f64::from(u8::from(is)));
        gauge
    };
    let is_ready = app.reasons_not_ready().is_empty();
    registry.register("ready", "1 when all lanes count what arrives", gauge(is_ready));
    let help = "1 while the store takes what is counted, 0 while it is waited for";
    registry.register("store_up", help, gauge(app.store.trouble().is_none()));
    if let Some(cells) = app.store.expired_cells() {
        let expired = Counter::<u64>::default();
        expired.inc_by(cells);
        let help = "Cells that were not written because their retention was over";
        registry.register("store_expired_cells", help, expired);
    }
    let has_failed = app.status.failure().is_some();
    registry.register("failed", "1 when a lane failed and the process ends", gauge(has_failed));
}

fn held(registry: &mut Registry, lanes: &[LaneStatus]) {
    let held = per_lane(lanes, |lane| Some(f64::from(u8::from(lane.held))));
    let help = "1 when an owner of this process has the lane; its other metrics are there then";
    registry.register("lane_held", help, held);
}

/// A family with one metric for each lane that has a value.
fn per_lane(
    lanes: &[LaneStatus],
    value: impl Fn(&LaneStatus) -> Option<f64>,
) -> Family<Labels, Number> {
    let family = Family::<Labels, Number>::default();
    for lane in lanes {
        if let Some(value) = value(lane) {
            family.get_or_create(&lane_label(lane)).set(value);
        }
    }
    family
}

fn lane_label(lane: &LaneStatus) -> Labels {
    vec![("lane", lane.lane.to_string())]
}

fn positions(registry: &mut Registry, app: &App, lanes: &[LaneStatus]) {
    let lag = per_lane(lanes, |lane| Some(lane.lag() as f64));
    registry.register("lag_records", "Records in the log that are not counted yet", lag);
    let rate = per_lane(lanes, |lane| Some(lane.records_per_second));
    let help = "Records that the lane's position moved on by, per second, over about ten seconds";
    registry.register("records_per_second", help, rate);
    let topics = app.plan.topics();
    let offsets = |of: fn(&LaneStatus) -> &[u64]| {
        let family = Family::<Labels, Number>::default();
        for lane in lanes {
            for (topic, offset) in topics.iter().zip(of(lane)) {
                let mut labels = lane_label(lane);
                labels.push(("topic", topic.clone()));
                family.get_or_create(&labels).set(*offset as f64);
            }
        }
        family
    };
    let next = offsets(|lane| &lane.next_offsets);
    registry.register(
        "next_offset",
        "Offset before which everything is durable in the store",
        next,
    );
    let end = offsets(|lane| &lane.end_offsets);
    registry.register("end_offset", "Offset that the next record of the log will get", end);
}

fn state(registry: &mut Registry, lanes: &[LaneStatus]) {
    let mut gauge = |name: &str, help: &str, value: fn(&LaneStatus) -> Option<f64>| {
        registry.register(name, help, per_lane(lanes, value));
    };
    gauge("lane_ready", "1 when the lane's state is whole, 0 while it is rebuilt", |lane| {
        Some(f64::from(u8::from(!lane.rebuilding)))
    });
    gauge("watermark_seconds", "Event time that the lane has reached, since 1970 UTC", |lane| {
        lane.watermark_ms.map(|ms| ms as f64 / 1000.0)
    });
    gauge("frontier_seconds", "Start of the first open epoch, since 1970 UTC", |lane| {
        Some(lane.frontier_ms as f64 / 1000.0)
    });
    gauge("state_bytes", "Memory of the join state", |lane| Some(lane.state_bytes as f64));
    gauge(
        "state_disk_bytes",
        "What of the join state is on disk, beyond the memory limit",
        |lane| Some(lane.state_disk_bytes as f64),
    );
    gauge("open_cells", "Cells of open epochs", |lane| Some(lane.open_cells as f64));
    gauge("snapshot_taken_seconds", "When the last snapshot was taken, since 1970 UTC", |lane| {
        lane.snapshot.map(|snapshot| snapshot.taken_ms as f64 / 1000.0)
    });
    gauge("snapshot_bytes", "Length of the last snapshot", |lane| {
        lane.snapshot.map(|snapshot| snapshot.bytes as f64)
    });
    gauge("snapshot_seconds", "How long the lane stood still for the last snapshot", |lane| {
        lane.snapshot.map(|snapshot| snapshot.took.as_secs_f64())
    });
    gauge("last_batch_seconds", "Time of the last batch, from reading to the commit", |lane| {
        Some(lane.last_batch_seconds)
    });
    gauge("last_batch_records", "Records in the last batch", |lane| {
        Some(lane.last_batch_records as f64)
    });
}

fn count(
    registry: &mut Registry,
    lanes: &[LaneStatus],
    (name, help): (&str, &str),
    value: impl Fn(&LaneStatus) -> u64,
) {
    let family = Family::<Labels, Counter>::default();
    for lane in lanes {
        family.get_or_create(&lane_label(lane)).inc_by(value(lane));
    }
    registry.register(name, help, family);
}

/// Registered without their `_total`, which the format adds.
fn counters(registry: &mut Registry, lanes: &[LaneStatus]) {
    let mut counter = |name: &str, help: &str, of: fn(&Counters) -> u64| {
        count(registry, lanes, (name, help), |lane| of(&lane.counters));
    };
    counter("events", "Events decoded up to the lane's position in the log", |c| c.events);
    counter("filtered", "Events that a filter refused, up to that position", |c| c.filtered);
    counter("dead", "Dead letters up to that position", |c| c.dead);
    counter("late", "Events in the late output up to that position", |c| c.late);
    counter("duplicates", "Events that were there before, up to that position", |c| c.duplicates);
}

fn work(registry: &mut Registry, lanes: &[LaneStatus]) {
    let replayed = ("replayed_records", "Records read again to rebuild state, since the start");
    count(registry, lanes, replayed, |lane| lane.replayed_records);
    count(registry, lanes, ("batches", "Batches since the start"), |lane| lane.batches);
}

/// Only where a repair is scheduled.
fn repair(registry: &mut Registry, app: &App) {
    let Some(status) = app.status.repair() else { return };
    let registry = registry.sub_registry_with_prefix("repair");
    let mut count = |name: &str, help: &str, value: u64| {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    };
    count("runs", "Comparisons of closed epochs with the log that were finished", status.runs);
    count("failures", "Comparisons that failed", status.failures);
    count("members", "Members that were added to closed epochs", status.added_members);
    count("gaps", "Gaps that were filled, wholly or in part", status.filled_gaps);
    let left = Number::default();
    left.set(status.left_cells as f64);
    let help = "Cells that still differed after the last comparison: their members or counts are \
                not what the log proves";
    registry.register("left_cells", help, left);
    if let Some(ms) = status.last_success_ms {
        let last = Number::default();
        last.set(ms as f64 / 1000.0);
        let help = "When the last comparison was finished, since 1970 UTC";
        registry.register("last_success_seconds", help, last);
    }
}

/// Only where training examples are made.
fn examples(registry: &mut Registry, app: &App) {
    let Some(status) = app.status.examples() else { return };
    let registry = registry.sub_registry_with_prefix("examples");
    let mut count = |name: &str, help: &str, value: u64| {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    };
    count("rows", "Training examples that were listed, corrections included", status.rows);
    count("corrections", "Rows of stretches that had been listed before", status.corrections);
    count("stretches", "Stretches of lanes that were listed", status.stretches);
    let help = "Of these, stretches of which the log had lost events";
    count("cut_stretches", help, status.cut);
    count("failures", "Times that examples could not be made", status.failures);
    let waiting = Number::default();
    waiting.set(status.waiting as f64);
    let help = "Closed stretches of lanes that wait for their examples";
    registry.register("waiting_stretches", help, waiting);
}

/// Only where raw events are kept.
fn archive(registry: &mut Registry, app: &App) {
    let Some(status) = app.status.archive() else { return };
    let registry = registry.sub_registry_with_prefix("archive");
    let mut count = |name: &str, help: &str, value: u64| {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    };
    count("files", "Files of raw events written into the lake", status.files);
    count("records", "Records in these files", status.records);
    count("bytes", "Bytes of these files", status.bytes);
    count("refused", "Files that another process had written first", status.refused);
    let help = "Offsets that the log had deleted before they were copied";
    count("lost_offsets", help, status.lost);
    count("failures", "Times that raw events could not be copied", status.failures);
    let waiting = Number::default();
    waiting.set(status.waiting as f64);
    let help = "Offsets that are committed and not copied into the lake yet";
    registry.register("waiting_offsets", help, waiting);
}

fn collector(registry: &mut Registry, app: &App) {
    let registry = registry.sub_registry_with_prefix("collector");
    let CollectorMetrics { requests, items, events, refused } = &app.metrics;
    registry.register("requests", "Requests to the collector since the start", requests.clone());
    registry.register("items", "Items judged by the collector since the start", items.clone());
    let help = "Events that were not refused, with the code of a tile (signed) and without";
    registry.register("events", help, events.clone());
    let help = "Events that could be read and were refused: codes and limits";
    registry.register("refused", help, refused.clone());
    let in_flight = Number::default();
    in_flight.set((app.in_flight_bytes - app.in_flight.available_permits()) as f64);
    let help = "Bodies that the collector holds at the moment";
    registry.register("in_flight_bytes", help, in_flight);
}
