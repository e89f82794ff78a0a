//! A server on a temporary log and store.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use marquee_expr::{Declared, RecordPredicate, Type};
use marquee_model::{CellCounts, CellKey, Kind, Partitioner};
use marquee_pipeline::Settings;
use marquee_pipeline::prepare::Stream;
use marquee_runtime::status::StatusBoard;
use marquee_runtime::{Plan, StreamPlan};
use marquee_server::{CollectorSettings, Demo, OpsSettings, Parts, RankSettings, router};
use marquee_sinks::embedded::EmbeddedStore;
use marquee_sinks::{ClosedCell, Identity, LaneState, Store};
use marquee_sources::embedded::{EmbeddedLog, RecordBatch};
use marquee_sources::json::{Decoder, Mapping, TimeUnit};
use serde_json::{Value as Json, json};
use std::sync::Arc;
use tempfile::TempDir;
use tower::ServiceExt;

/// What the server takes for now.
pub(crate) const NOW_MS: i64 = 1_479_688_200_000;
pub(crate) const LANES: u32 = 4;
pub(crate) const HALF_HOUR_MS: i64 = 1_800_000;

/// What a test wants to be different.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) topics: [&'static str; 2],
    pub(crate) wheres: [&'static str; 2],
    pub(crate) explode: Option<&'static str>,
    pub(crate) request_ids: [&'static str; 2],
    pub(crate) filter: &'static str,
    pub(crate) transform: &'static str,
    pub(crate) max_body_bytes: u64,
    pub(crate) epochs_ms: Vec<i64>,
    pub(crate) collector: CollectorSettings,
    pub(crate) rank: RankSettings,
    pub(crate) member_pages: bool,
    pub(crate) ops: OpsSettings,
    pub(crate) demo: Option<Arc<dyn Demo>>,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            topics: ["impressions", "plays"],
            wheres: ["", ""],
            explode: None,
            request_ids: ["request_id"; 2],
            filter: "device != \"console\"",
            transform: "",
            max_body_bytes: 4 << 20,
            epochs_ms: vec![HALF_HOUR_MS],
            collector: CollectorSettings::default(),
            rank: RankSettings {
                token: String::new(),
                keys: Vec::new(),
                expires_ms: 2 * HALF_HOUR_MS,
                horizon_ms: 4 * HALF_HOUR_MS,
                prior: 50.0,
            },
            member_pages: false,
            ops: OpsSettings {
                token: String::new(),
                allowed_hosts: Vec::new(),
                is_public: false,
                batch_interval_ms: 250,
                annotations: Arc::default(),
            },
            demo: None,
        }
    }
}

pub(crate) struct Server {
    pub(crate) router: Router,
    pub(crate) log: EmbeddedLog,
    pub(crate) store: EmbeddedStore,
    pub(crate) status: Arc<StatusBoard>,
    pub(crate) folder: TempDir,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

fn path(text: &str) -> Vec<String> {
    text.split('.').map(str::to_owned).collect()
}

impl Setup {
    fn stream(&self, kind: Kind) -> StreamPlan {
        let place = kind as usize;
        let declared = [
            Declared { name: "device".into(), ty: Type::String, optional: true },
            Declared { name: "n".into(), ty: Type::Int, optional: true },
        ];
        let attributes = declared.iter().map(|d| (d.clone(), path(&d.name))).collect();
        let source = self.wheres[place];
        let mapping = Mapping {
            record_filter: (!source.is_empty()).then(|| RecordPredicate::compile(source).unwrap()),
            explode: self.explode.map(path),
            request_id: path(self.request_ids[place]),
            video: path("video_id"),
            time: path("ts"),
            time_unit: TimeUnit::Milliseconds,
            attributes,
        };
        let stream =
            Stream::new(kind, &declared, self.filter, self.transform, &[vec![]], true).unwrap();
        StreamPlan { decoder: Decoder::new(mapping), stream, topic: self.topics[place].into() }
    }

    fn fingerprint(&self) -> Json {
        let stream = |place: usize| {
            json!({
                "where": self.wheres[place], "explode": self.explode,
                "request_id": self.request_ids[place], "video": "video_id", "time": "ts",
                "time_unit": "ms", "attributes": {},
            })
        };
        json!({ "impressions": stream(0), "plays": stream(1) })
    }

    pub(crate) fn start(self) -> Server {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { epochs_ms: self.epochs_ms.clone(), ..Settings::default() };
        let plan = Plan {
            impressions: self.stream(Kind::Impression),
            plays: self.stream(Kind::Play),
            settings,
            max_ahead_ms: 600_000,
            lanes: LANES,
            uses_keys: true,
            partitioner: Partitioner::Murmur2,
            fingerprint: self.fingerprint(),
        };
        let log = EmbeddedLog::open(&folder.path().join("log"), &plan.topics(), LANES).unwrap();
        let identity = Identity {
            settings: plan.fingerprint.clone(),
            lanes: Some(LANES),
            epochs_ms: self.epochs_ms,
            new_id: "generation-1".into(),
            new_secret: [7; 16],
        };
        let store =
            EmbeddedStore::open(&folder.path().join("store"), &identity, true, Default::default())
                .unwrap();
        let status = Arc::new(StatusBoard::new(LANES, 1));
        status.give(0..LANES, false);
        let parts = Parts {
            plan: Arc::new(plan),
            log: Arc::new(log.clone()),
            store: Arc::new(store.clone()),
            status: Arc::clone(&status),
            lake: None,
            max_body_bytes: self.max_body_bytes,
            collector: self.collector,
            rank: self.rank,
            member_pages: self.member_pages,
            ops: self.ops,
            demo: self.demo,
            clock: || NOW_MS,
        };
        Server { router: router(parts), log, store, status, folder }
    }
}

impl Server {
    pub(crate) fn new() -> Self {
        Setup::default().start()
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        Answer { status, headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }

    pub(crate) async fn get(&self, uri: &str) -> Answer {
        self.send(Request::get(uri).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn post(&self, uri: &str, body: impl Into<Body>) -> Answer {
        self.send(Request::post(uri).body(body.into()).unwrap()).await
    }

    /// All records of a topic as (lane, key, payload).
    pub(crate) fn records(&self, topic: usize) -> Vec<(u32, String, String)> {
        let mut records = Vec::new();
        for lane in 0..LANES {
            let mut batch = RecordBatch::new();
            self.log.read(topic, lane, 0, 1_000_000, 1 << 30, &mut batch).unwrap();
            for record in batch.iter() {
                assert_eq!(record.record_time_ms, NOW_MS);
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                records.push((lane, text(record.key.unwrap()), text(record.payload)));
            }
        }
        records
    }

    /// Writes cells of one lane: (video, epoch start, length, slice, impressions, plays).
    pub(crate) fn write(
        &self,
        lane: u32,
        frontier: i64,
        cells: &[(&str, i64, i64, &str, u64, u64)],
    ) {
        let cells: Vec<(CellKey, CellCounts)> = cells
            .iter()
            .map(|&(video, epoch_start_ms, epoch_ms, slice, impressions, plays)| {
                let (video, slice) = (video.to_owned(), slice.to_owned());
                let key = CellKey { video, epoch_start_ms, epoch_ms, slice };
                (key, CellCounts { impressions, plays })
            })
            .collect();
        let state = LaneState { frontier, ..LaneState::default() };
        let none = [Vec::new(), Vec::new()];
        let cells: Vec<_> = cells
            .iter()
            .map(|(key, counts)| ClosedCell { key, counts: *counts, chunks: none.clone() })
            .collect();
        self.store.write_closed(lane, 1, &cells, Some(&state)).unwrap();
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Json {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Checks that it is a problem document of that status whose detail holds some words.
    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16, words: &str) {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let document = self.json();
        assert_eq!(document["status"], status);
        assert_eq!(document["type"], "about:blank");
        assert!(!document["title"].as_str().unwrap().is_empty());
        let detail = document["detail"].as_str().unwrap();
        assert!(detail.contains(words), "{detail}");
    }
}

/// An event that counts.
pub(crate) fn event(request_id: &str) -> Json {
    json!({ "request_id": request_id, "video_id": "v", "ts": NOW_MS })
}
