//! Every kind of record that a stock producer writes to Kafka, read by the real binary: each is
//! counted, filtered, set aside with a reason, or not read yet, and nothing after it is lost.

#![allow(clippy::unwrap_used)] // a test that cannot go on panics

use marquee_e2e::data::Data;
use marquee_e2e::kafka::{Client, FAST_GROUP, Place, Setup, broker, dead_letters};
use marquee_e2e::service::Service;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Half an hour of 2016 begins here.
const T: i64 = 1_479_686_400_000;
const MINUTE: i64 = 60_000;

/// A job whose fields have their default names.
const PLAIN: &str = "[impressions]\n[plays]\n";

/// As a test begins: names on the shared broker, a folder, a client.
struct Test {
    setup: Setup,
    client: Client,
    _data: Data,
}

impl Test {
    /// `None` where there is no broker or no client: the test is skipped.
    fn new(name: &str) -> Option<Test> {
        let (brokers, client) = (broker()?, Client::find()?);
        let data = Data::of("", "");
        Some(Test { setup: Setup::new(brokers, &data, name), client, _data: data })
    }

    /// Both topics, with so many partitions.
    fn create(&self, partitions: u32, of_impressions: Value, of_plays: Value) {
        let Setup { impressions, plays, .. } = &self.setup;
        let topics = [(&**impressions, partitions, of_impressions), (plays, partitions, of_plays)];
        self.setup.create(&self.client, &topics);
    }

    /// Writes records where murmur2 puts their keys, unless they say where.
    fn produce(&self, records: &[Value]) -> Vec<Place> {
        self.setup.produce(&self.client, json!({ "partitioner": "murmur2_random" }), records)
    }

    fn start(&self, job: &str) -> Service {
        let config = self.setup.config_of("store", job, FAST_GROUP, "");
        Service::start(&config, &self.setup.file("log"))
    }

    /// Dead letters of a lane: topic, offset and reason.
    fn letters(&self, lane: u32) -> Vec<(String, u64, String)> {
        let letters = dead_letters(&self.setup.store("store"), lane);
        let topic = |source: String| {
            let (topic, in_lane) = source.split_once('/').unwrap();
            assert_eq!(in_lane, lane.to_string());
            topic.to_owned()
        };
        letters.into_iter().map(|(source, at, why, _)| (topic(source), at, why)).collect()
    }

    /// An impression, keyed by its request.
    fn shown(&self, id: &str, video: &str) -> Value {
        record(
            &self.setup.impressions,
            id,
            &json!({ "request_id": id, "video_id": video, "ts": T }),
        )
    }

    /// A play, keyed by its request.
    fn played(&self, id: &str, video: &str) -> Value {
        let event = json!({ "request_id": id, "video_id": video, "ts": T + MINUTE });
        record(&self.setup.plays, id, &event)
    }
}

fn record(topic: &str, key: &str, event: &Value) -> Value {
    json!({ "topic": topic, "key": key, "value": event.to_string(), "timestamp": T })
}

/// A record with one more field, or with another value of one.
fn with(mut record: Value, name: &str, value: Value) -> Value {
    record[name] = value;
    record
}

fn base16(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Impressions and plays by video, or by video and slice. No test here has two epochs.
fn cells(service: &Service) -> BTreeMap<String, (u64, u64)> {
    let mut cells = BTreeMap::new();
    for cell in service.trends() {
        let (video, slice) = (cell["video"].as_str().unwrap(), &cell["slice"]);
        let name = match slice.as_object().unwrap().is_empty() {
            true => video.to_owned(),
            false => format!("{video} {slice}"),
        };
        let number = |name: &str| cell[name].as_u64().unwrap();
        assert_eq!(cell["complete"], true, "{cell}");
        let old = cells.insert(name, (number("impressions"), number("plays")));
        assert_eq!(old, None, "one cell each: {cell}");
    }
    cells
}

fn expected<const N: usize>(cells: [(&str, (u64, u64)); N]) -> BTreeMap<String, (u64, u64)> {
    cells.into_iter().map(|(name, counts)| (name.to_owned(), counts)).collect()
}

fn totals<'s>(status: &'s Value, name: &str) -> &'s Value {
    &status["totals"][name]
}

#[test]
fn every_compression_gives_the_same_cells() {
    let Some(test) = Test::new("compressions") else { return };
    test.create(4, json!({}), json!({}));
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    for codec in codecs {
        let mut records = Vec::new();
        for n in 0..500 {
            let id = format!("request-{n}");
            records.push(test.shown(&id, codec));
            if n % 3 == 0 {
                records.push(test.played(&id, codec));
            }
        }
        let config = json!({ "partitioner": "murmur2_random", "compression.type": codec });
        test.setup.produce(&test.client, config, &records);
    }
    let service = test.start(PLAIN);
    let status = service.wait_until_counted(5 * 667);
    assert_eq!(totals(&status, "dead"), 0, "{status}");
    assert_eq!(cells(&service), expected(codecs.map(|codec| (codec, (500, 167)))));
    assert_eq!(service.terminate(), Some(0));
}

#[test]
fn keys_headers_partitions_offsets_and_record_times_are_fields_like_others() {
    let Some(test) = Test::new("fields") else { return };
    test.create(4, json!({}), json!({}));
    let job = r#"
        [impressions]
        request_id = "$record.key"
        filter = 'key != "request-5" && (!has(headers.source) || headers["source"] != "bot")'
        attributes = { source = { path = "$record.headers.source", type = "string?" }, lane = { path = "$record.partition", type = "int" } }
        [plays]
        request_id = "$record.key"
        time = "$record.time"
        filter = 'source != "bot" && at >= 0 && record_time == time && record_time > 1479686400000'
        attributes = { source = { path = "$record.headers.source", type = "string?" }, at = { path = "$record.offset", type = "int" } }
        [transform]
        slices = [[], ["source"], ["lane"]]
        "#;
    // Of two headers of one name the last one counts, in a path as in an expression.
    let headers = |n: u64| match n % 4 {
        0 => json!([["source", "bot"]]),
        1 => json!([["source", "bot"], ["trace", "7"], ["source", "tv"]]),
        2 => json!([["source", "phone"], ["empty", null]]),
        _ => json!([]),
    };
    let keyed = |topic: &str, n: u64, event: Value, time_ms: i64| {
        let record = record(topic, &format!("request-{n}"), &event);
        with(with(record, "headers", headers(n)), "timestamp", json!(time_ms))
    };
    let (impressions, plays) = (&test.setup.impressions, &test.setup.plays);
    // No request id in the JSON, and no time in that of plays.
    let shown: Vec<Value> =
        (0..40).map(|n| keyed(impressions, n, json!({ "video_id": "v", "ts": T }), T)).collect();
    let at = test.produce(&shown);
    // One play a request, a minute later; and that of request 7 at its very impression, which the
    // filter on record_time does not let through.
    let played: Vec<Value> = (0..40)
        .map(|n| {
            let time_ms = if n == 7 { T } else { T + MINUTE };
            keyed(plays, n, json!({ "video_id": "v" }), time_ms)
        })
        .collect();
    test.produce(&played);
    // Without a key there is no request.
    let no_key = json!({ "topic": impressions, "partition": 2, "timestamp": T,
                         "value": json!({ "video_id": "v", "ts": T }).to_string() });
    let no_key_at = test.produce(&[no_key])[0];

    let service = test.start(job);
    let status = service.wait_until_counted(81);
    assert_eq!(totals(&status, "dead"), 1, "{status}");
    // Of impressions and of plays every fourth is a bot's; the one of request 5 is left out by its
    // key, and the play of request 7 by its time.
    assert_eq!(totals(&status, "filtered"), 10 + 1 + 10 + 1, "{status}");
    let is_counted = |n: &u64| !n.is_multiple_of(4) && *n != 5;
    let counts = |of: &dyn Fn(u64) -> bool| {
        let shown = (0..40).filter(is_counted).filter(|n| of(*n));
        let played = shown.clone().filter(|n| *n != 7);
        (shown.count() as u64, played.count() as u64)
    };
    let mut wanted = expected([
        ("v", (29, 28)),
        (r#"v {"source":"tv"}"#, counts(&|n| n % 4 == 1)),
        (r#"v {"source":"phone"}"#, (10, 10)),
        (r#"v {"source":null}"#, counts(&|n| n % 4 == 3)),
    ]);
    for lane in 0..4 {
        let of_lane = counts(&|n| at[n as usize].0 == lane);
        wanted.insert(format!(r#"v {{"lane":{lane}}}"#), of_lane);
    }
    assert_eq!(cells(&service), wanted);
    assert_eq!(service.terminate(), Some(0));
    let letters = test.letters(2);
    let no_key = "$record.key is missing, not a text or a whole number".to_owned();
    assert_eq!(letters, [(impressions.clone(), no_key_at.1, no_key)]);
}

#[test]
fn what_is_no_event_is_set_aside_with_its_place_and_everything_after_it_is_counted() {
    let Some(test) = Test::new("dead") else { return };
    test.create(1, json!({}), json!({}));
    let topic = &test.setup.impressions;
    let bytes = |base16: &str| json!({ "topic": topic, "key": "k", "value_base16": base16 });
    let other_time = json!({ "request_id": "r", "video_id": "v", "ts": "noon" });
    let records = [
        test.shown("first", "v"),
        json!({ "topic": topic, "key": "k", "value": null }),
        json!({ "topic": topic, "key": "k", "value": "not JSON" }),
        bytes("fffe00"),
        bytes(""),
        json!({ "topic": topic, "key": "k", "value": "[1]" }),
        record(topic, "k", &other_time),
        // In a text that nobody asks for, too.
        bytes(&base16(
            br#"{"request_id": "r", "video_id": "v", "ts": 1479686400000, "x": "\xff"}"#,
        )),
        test.shown("last", "v"),
    ];
    let played =
        [json!({ "topic": test.setup.plays, "key": "k", "value": null }), test.played("last", "v")];
    let at: Vec<u64> = test.produce(&records).into_iter().map(|(_, offset)| offset).collect();
    assert_eq!(at, [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    test.produce(&played);
    let service = test.start(PLAIN);
    let status = service.wait_until_counted(11);
    assert_eq!(totals(&status, "dead"), 8, "{status}");
    assert_eq!(cells(&service), expected([("v", (2, 1))]));
    assert_eq!(service.terminate(), Some(0));

    let letters = dead_letters(&test.setup.store("store"), 0);
    let of = |wanted: &str| {
        let source = format!("{wanted}/0");
        let of_topic = letters.iter().filter(|letter| letter.0 == source);
        of_topic.map(|(_, at, why, letter)| (*at, why.as_str(), letter)).collect::<Vec<_>>()
    };
    let of_impressions = of(topic);
    let reasons: Vec<(u64, &str)> = of_impressions.iter().map(|l| (l.0, l.1)).collect();
    for ((at, reason), (wanted_at, words)) in reasons.iter().zip([
        (1, "tombstone"),
        (2, "not JSON"),
        (3, "not JSON"),
        (4, "not JSON: EOF"),
        (5, "expected a JSON object"),
        (6, "ts is a text"),
        (7, "not JSON"),
    ]) {
        assert_eq!(*at, wanted_at);
        assert!(reason.contains(words), "{words:?} of {reasons:#?}");
    }
    assert_eq!(reasons.len(), 7);
    assert_eq!(of_impressions[1].2["record"], "not JSON");
    assert_eq!(of_impressions[2].2["record_base16"], "fffe00");
    let of_plays = of(&test.setup.plays);
    assert_eq!(of_plays.len(), 1);
    assert!(of_plays[0].0 == 0 && of_plays[0].1.contains("tombstone"), "{of_plays:?}");

    // A restart reads them again where it rebuilds, and neither counts nor writes them again.
    let again = test.start(PLAIN);
    let status = again.wait_until_counted(11);
    assert_eq!((totals(&status, "dead"), totals(&status, "events")), (&json!(8), &json!(11)));
    assert_eq!(again.terminate(), Some(0));
    assert_eq!(dead_letters(&test.setup.store("store"), 0).len(), letters.len());
}

#[test]
fn only_what_a_transaction_has_committed_is_counted_and_markers_are_no_lag() {
    let Some(test) = Test::new("transactions") else { return };
    test.create(1, json!({}), json!({}));
    let shown = |from: u32, to: u32| -> Vec<Value> {
        (from..to).map(|n| test.shown(&format!("r{n}"), "v")).collect()
    };
    let producer = json!({ "transactional.id": test.setup.group });
    test.setup.transact(&test.client, producer.clone(), "commit", &shown(0, 10));
    test.setup.transact(&test.client, producer.clone(), "abort", &shown(10, 20));
    let plays = [test.played("r1", "v"), test.played("r11", "v")];
    test.setup.transact(&test.client, producer.clone(), "commit", &plays);

    let service = test.start(PLAIN);
    let status = service.wait_until_counted(12);
    assert_eq!(totals(&status, "events"), 12, "{status}");
    assert_eq!(service.readiness(), 200);
    assert_eq!(cells(&service), expected([("v", (10, 1))]));

    // Neither a transaction that is open is read nor what follows it, by whomever.
    let open = test.setup.begin(&test.client, producer.clone(), &shown(20, 30));
    test.produce(&shown(30, 31));
    std::thread::sleep(std::time::Duration::from_millis(700));
    let status = service.get("/v1/status");
    assert_eq!((totals(&status, "events"), &status["lag"]), (&json!(12), &json!(0)), "{status}");
    assert_eq!(service.readiness(), 200);
    // A restart in the middle of it changes nothing.
    assert_eq!(service.terminate(), Some(0));
    let service = test.start(PLAIN);
    let status = service.wait_until_counted(12);
    assert_eq!(totals(&status, "events"), 12, "{status}");
    open.commit();
    let status = service.wait_until_counted(23);
    assert_eq!(totals(&status, "events"), 23, "{status}");
    assert_eq!(cells(&service), expected([("v", (21, 1))]));

    // With nothing but aborted records and markers at its end, a partition is read to its end.
    test.setup.transact(&test.client, producer, "abort", &shown(40, 50));
    std::thread::sleep(std::time::Duration::from_millis(700));
    let status = service.wait_until_counted(23);
    assert_eq!(totals(&status, "events"), 23, "{status}");
    assert_eq!(service.readiness(), 200);
    assert_eq!(service.terminate(), Some(0));
    let topics = json!({ test.setup.impressions.clone(): 1, test.setup.plays.clone(): 1 });
    let ask = json!({ "do": "committed", "group": test.setup.group, "topics": topics });
    let answer = test.setup.client(&test.client, ask);
    for place in answer["offsets"].as_array().unwrap() {
        assert_eq!(place[2], place[4], "a stock client sees no lag either: {answer}");
    }
}

#[test]
fn a_record_of_3_mb_is_read_and_one_of_17_mb_is_set_aside() {
    let Some(test) = Test::new("large") else { return };
    test.create(1, json!({ "max.message.bytes": "33554432" }), json!({}));
    let padded = |id: &str, bytes: usize| {
        let event = json!({ "request_id": id, "video_id": "v", "ts": T, "pad": "x".repeat(bytes) });
        record(&test.setup.impressions, id, &event)
    };
    let records = [
        padded("small", 1),
        padded("large", 3_000_000),
        padded("too-large", 17_000_000),
        padded("large-again", 3_000_000),
        padded("small-again", 1),
    ];
    let config = json!({ "message.max.bytes": 33_554_432 });
    test.setup.produce(&test.client, config, &records);
    let service = test.start(PLAIN);
    let status = service.wait_until_counted(5);
    assert_eq!(totals(&status, "dead"), 1, "{status}");
    assert_eq!(cells(&service), expected([("v", (4, 0))]));
    assert_eq!(service.terminate(), Some(0));
    let letters = test.letters(0);
    assert_eq!(letters.len(), 1);
    let (topic, offset, reason) = &letters[0];
    assert_eq!((topic, *offset), (&test.setup.impressions, 2));
    assert!(reason.contains("17000") && reason.contains("16"), "{reason}");
}

#[test]
fn max_ahead_is_judged_against_the_time_that_the_topic_gives_its_records() {
    let Some(test) = Test::new("times") else { return };
    // Impressions are stamped by their producer, plays by the broker, whatever the producer says.
    test.create(1, json!({}), json!({ "message.timestamp.type": "LogAppendTime" }));
    let now_ms = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as i64;
    let at = |topic: &str, id: &str, video: &str, time_ms: i64| {
        record(topic, id, &json!({ "request_id": id, "video_id": video, "ts": time_ms }))
    };
    let (impressions, plays) = (&test.setup.impressions, &test.setup.plays);
    let shown = [
        at(impressions, "same", "v", T),
        at(impressions, "just", "v", T + 10 * MINUTE),
        at(impressions, "over", "v", T + 10 * MINUTE + 1),
        at(impressions, "now", "v", now_ms),
    ];
    let played = [
        at(plays, "same", "v", T + MINUTE),
        // Far ahead of what the producer stamps, and not of what the broker does.
        at(plays, "just", "v", T + 40 * MINUTE),
        at(plays, "same", "v", now_ms + 20 * MINUTE),
    ];
    test.produce(&shown);
    test.produce(&played);
    let job = "[impressions]\n[plays]\nfilter = 'record_time > 1700000000000'\n";
    let service = test.start(job);
    let status = service.wait_until_counted(7);
    assert_eq!(totals(&status, "dead"), 3, "{status}");
    assert_eq!(totals(&status, "filtered"), 0, "{status}");
    assert_eq!(cells(&service), expected([("v", (2, 2))]));
    assert_eq!(service.terminate(), Some(0));
    let letters = test.letters(0);
    let of = |topic: &str| -> Vec<(u64, &str)> {
        let of_topic = letters.iter().filter(|letter| letter.0 == topic);
        of_topic.map(|(_, at, why)| (*at, why.as_str())).collect()
    };
    let (of_shown, of_played) = (of(impressions), of(plays));
    let ahead = "600001 ms after the record time, more than max_ahead (600000 ms)";
    assert!(of_shown.len() == 2 && of_shown[0].0 == 2, "{of_shown:?}");
    assert!(of_shown[0].1.contains(ahead), "{of_shown:?}");
    assert!(of_shown[1].0 == 3 && of_shown[1].1.contains("more than max_ahead"), "{of_shown:?}");
    assert!(of_played.len() == 1 && of_played[0].0 == 2, "{of_played:?}");
    assert!(of_played[0].1.contains("more than max_ahead"), "{of_played:?}");
}

#[test]
fn strangers_in_a_list_and_a_single_stray_record_are_set_aside_and_the_rest_is_counted() {
    let Some(test) = Test::new("strays") else { return };
    test.create(4, json!({}), json!({}));
    let job = "[impressions]\nexplode = \"rows\"\n[plays]\n";
    let ids: Vec<String> = (0..3000).map(|n| format!("request-{n}")).collect();
    let page = |key: &str, rows: &[(&str, &str)]| {
        let row = |(id, video): &(&str, &str)| json!({ "request_id": id, "video_id": video });
        let rows: Vec<Value> = rows.iter().map(row).collect();
        record(&test.setup.impressions, key, &json!({ "ts": T, "rows": rows }))
    };
    let pages: Vec<Value> = ids.iter().map(|id| page(id, &[(id, "v"), (id, "w")])).collect();
    let lanes: Vec<u32> = test.produce(&pages).into_iter().map(|(lane, _)| lane).collect();
    let of_lane = |lane: u32| {
        let (ids, lanes) = (&ids, &lanes);
        (0..3000).filter(move |n| lanes[*n] == lane).map(move |n| ids[n].as_str())
    };
    let ([a, b, c], stranger) = (
        <[&str; 3]>::try_from(of_lane(1).take(3).collect::<Vec<_>>()).unwrap(),
        of_lane(2).next().unwrap(),
    );
    // One list holds requests of two lanes; one record stands where its request is not.
    let mixed = page(a, &[(a, "x"), (stranger, "x"), (b, "x"), (c, "x")]);
    let astray = with(test.played(stranger, "v"), "partition", json!(3));
    let mixed_at = test.produce(&[mixed])[0];
    let astray_at = test.produce(&[astray])[0];
    assert_eq!((mixed_at.0, astray_at.0), (1, 3));
    let plays: Vec<Value> = ids.iter().map(|id| test.played(id, "v")).collect();
    test.produce(&plays);

    let service = test.start(job);
    let status = service.wait_until_counted(3000 * 2 + 4 + 1 + 3000);
    assert_eq!(totals(&status, "dead"), 2, "{status}");
    let wanted = expected([("v", (3000, 3000)), ("w", (3000, 0)), ("x", (3, 0))]);
    assert_eq!(cells(&service), wanted);
    // It goes on, also where a list holds more events than are applied at a time.
    let videos: Vec<String> = (0..1000).map(|n| format!("z{n}")).collect();
    let long: Vec<(&str, &str)> = videos.iter().map(|video| (b, video.as_str())).collect();
    test.produce(&[page(b, &[(b, "y")]), page(b, &long)]);
    service.wait_until_counted(3000 * 2 + 4 + 1 + 3000 + 1 + 1000);
    let cells = cells(&service);
    assert_eq!(cells["y"], (1, 0));
    assert!(videos.iter().all(|video| cells[video] == (1, 0)), "{cells:?}");
    assert_eq!(service.terminate(), Some(0));
    for (lane, topic, at, belongs) in [
        (1, &test.setup.impressions, mixed_at.1, "belongs to partition 2 of 4 by murmur2"),
        (3, &test.setup.plays, astray_at.1, "belongs to partition 2 of 4 by murmur2"),
    ] {
        let letters = test.letters(lane);
        assert_eq!(letters.len(), 1, "{letters:?}");
        assert_eq!((&letters[0].0, letters[0].1), (topic, at));
        assert!(letters[0].2.contains(belongs), "{letters:?}");
    }
    assert_eq!((test.letters(0), test.letters(2)), (Vec::new(), Vec::new()));
}

#[test]
fn both_kinds_in_one_topic_are_told_apart_by_where() {
    let Some(mut test) = Test::new("one-topic") else { return };
    test.setup.plays = test.setup.impressions.clone();
    let topic = test.setup.impressions.clone();
    test.setup.create(&test.client, &[(&topic, 4, json!({}))]);
    let job = "[impressions]\nwhere = 'kind == \"impression\"'\n\
               [plays]\nwhere = 'kind == \"play\"'\n";
    let event = |id: &str, kind: &str, time_ms: i64| {
        let event = json!({ "request_id": id, "video_id": "v", "ts": time_ms, "kind": kind });
        record(&topic, id, &event)
    };
    let mut records = Vec::new();
    for n in 0..100 {
        let id = format!("r{n}");
        records.push(event(&id, "impression", T));
        records.push(event(&id, "advertisement", T));
        if n % 4 == 0 {
            // Later than its impression, and earlier in the log than that of the next request.
            records.push(event(&id, "play", T + MINUTE));
        }
    }
    test.produce(&records);
    let no_json = json!({ "topic": topic, "partition": 1, "value": "{", "timestamp": T });
    let no_json_at = test.produce(&[no_json])[0];
    let service = test.start(job);
    let status = service.wait_until_counted(126);
    assert_eq!(cells(&service), expected([("v", (100, 25))]));
    assert_eq!((totals(&status, "events"), totals(&status, "dead")), (&json!(126), &json!(1)));
    assert_eq!(service.terminate(), Some(0));
    // One record, one letter, though it is no event of either kind.
    let letters = test.letters(1);
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!((&letters[0].0, letters[0].1), (&topic, no_json_at.1));
    let topics = json!({ topic: 4 });
    let ask = json!({ "do": "committed", "group": test.setup.group, "topics": topics });
    let answer = test.setup.client(&test.client, ask);
    for place in answer["offsets"].as_array().unwrap() {
        assert_eq!(place[2], place[4], "{answer}");
    }
}
