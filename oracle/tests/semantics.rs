//! The oracle against the examples and the limits that `docs/semantics.md` states by hand.
//!
//! Every expected set is written out as text, one `side video epoch-start slice request` a member,
//! and never computed with the oracle's own functions.

use marquee_oracle::{Cell, Event, Kind, Member, Settings, Side, counts, csv, members, proofs};
use std::collections::{BTreeMap, BTreeSet};

const MINUTE: i64 = 60_000;

/// An event without attributes, at a time of day in minutes.
fn event(kind: Kind, request_id: &str, video: &str, minute: i64) -> Event {
    Event {
        kind,
        request_id: request_id.to_owned(),
        video: video.to_owned(),
        time_ms: minute * MINUTE,
        attributes: BTreeMap::new(),
    }
}

fn impression(request_id: &str, video: &str, minute: i64) -> Event {
    event(Kind::Impression, request_id, video, minute)
}

fn play(request_id: &str, video: &str, minute: i64) -> Event {
    event(Kind::Play, request_id, video, minute)
}

/// The same event at an exact time.
fn at(mut event: Event, time_ms: i64) -> Event {
    event.time_ms = time_ms;
    event
}

/// The same event with one more attribute, given as JSON text.
fn with(mut event: Event, name: &str, json: &str) -> Event {
    event.attributes.insert(name.to_owned(), json.to_owned());
    event
}

/// "The setting of the slides."
fn slides() -> Settings {
    Settings {
        match_video: false,
        impressions_joined: true,
        epoch_of_play_is_play: true,
        ..Settings::default()
    }
}

/// Grouping sets from texts such as `"country device"`.
fn grouping_sets(sets: &[&str]) -> Vec<Vec<String>> {
    sets.iter().map(|set| set.split_whitespace().map(str::to_owned).collect()).collect()
}

/// A member as text; the length of the epoch is left out, its start is in minutes.
fn show(member: &Member) -> String {
    let Member { cell, side, request_id } = member;
    assert_eq!(cell.epoch_start_ms % MINUTE, 0);
    let slice = if cell.slice.is_empty() { "-" } else { &cell.slice };
    format!("{side:?} {} {} {slice} {request_id}", cell.video, cell.epoch_start_ms / MINUTE)
}

/// Exactly these members.
fn assert_members(events: &[Event], settings: &Settings, expected: &[&str]) {
    let found: BTreeSet<String> = members(events, settings).iter().map(show).collect();
    let expected: BTreeSet<String> = expected.iter().map(|&text| text.to_owned()).collect();
    assert_eq!(found, expected);
}

/// Whether the play matches, told by the side that needs a match.
fn has_play(events: &[Event], settings: &Settings) -> bool {
    members(events, settings).iter().any(|member| member.side == Side::Plays)
}

#[test]
fn the_defaults_are_those_of_the_page() {
    let s = Settings::default();
    assert!(s.match_video && !s.impressions_joined && !s.epoch_of_play_is_play);
    assert_eq!((s.within_ms, s.early_ms), (3_600_000, 60_000));
    assert_eq!(s.epochs_ms, [1_800_000]);
    assert_eq!(s.slices, [Vec::<String>::new()]);
}

#[test]
fn worked_example_step_by_step() {
    let steps: [(Event, &[&str]); 6] = [
        (impression("R1", "A", 1), &[]),
        (impression("R2", "B", 2), &[]),
        (play("R1", "A", 3), &["Impressions A 0 - R1", "Plays A 0 - R1"]),
        (impression("R3", "C", 4), &[]),
        (impression("R1", "D", 2), &["Impressions D 0 - R1"]),
        (play("R1", "A", 3), &[]),
    ];
    let mut events = vec![];
    let mut expected = vec![];
    for (arrives, deltas) in steps {
        events.push(arrives);
        expected.extend_from_slice(deltas);
        assert_members(&events, &slides(), &expected);
    }
    assert_eq!(expected.len(), 3);
}

#[test]
fn worked_example_under_the_defaults_needs_the_same_video() {
    let events = [
        impression("R1", "A", 1),
        impression("R2", "B", 2),
        play("R1", "A", 3),
        impression("R1", "D", 2),
        play("R1", "B", 4),
        play("R2", "A", 4),
    ];
    let expected =
        ["Impressions A 0 - R1", "Impressions B 0 - R2", "Impressions D 0 - R1", "Plays A 0 - R1"];
    assert_members(&events, &Settings::default(), &expected);
}

#[test]
fn case_two_sightings_and_two_plays_are_one_member() {
    let events = [
        impression("R1", "A", 1),
        play("R1", "A", 20),
        impression("R1", "A", 29),
        play("R1", "A", 70),
    ];
    let expected = ["Impressions A 0 - R1", "Plays A 0 - R1"];
    assert_members(&events, &Settings::default(), &expected);
    // The pair of the two later events is enough "when the 00:01 fact could have been forgotten".
    assert_members(&events[2..], &Settings::default(), &expected);
    // The play at 00:20 is too early for 00:29, that at 01:10 too late for 00:01.
    let all = proofs(&events, &Settings::default());
    let all: Vec<_> = all.iter().map(|(member, proofs)| (show(member), proofs.clone())).collect();
    assert_eq!(
        all,
        [
            (expected[0].to_owned(), vec![vec![0], vec![2]]),
            (expected[1].to_owned(), vec![vec![0, 1], vec![2, 3]]),
        ]
    );
}

#[test]
fn case_the_play_belongs_to_the_sighting_that_it_matches() {
    let events = [impression("R1", "A", 1), impression("R1", "A", 50), play("R1", "A", 100)];
    let expected = ["Impressions A 0 - R1", "Impressions A 30 - R1", "Plays A 30 - R1"];
    assert_members(&events, &Settings::default(), &expected);
}

#[test]
fn case_a_short_within_does_not_split_an_epoch() {
    let s = Settings { within_ms: 5 * MINUTE, ..Settings::default() };
    let events = [impression("R1", "A", 1), impression("R1", "A", 29)];
    assert_members(&events, &s, &["Impressions A 0 - R1"]);
    let all: Vec<_> = proofs(&events, &s).into_values().collect();
    assert_eq!(all, [[[0], [1]]]);
}

#[test]
fn a_play_matches_from_early_to_within_both_inclusive() {
    let seen = 100 * MINUTE;
    let s = Settings { within_ms: 7_000, early_ms: 3_000, ..Settings::default() };
    for (delay, matches) in
        [(-3_001, false), (-3_000, true), (0, true), (7_000, true), (7_001, false)]
    {
        let events = [at(impression("R1", "A", 0), seen), at(play("R1", "A", 0), seen + delay)];
        for s in [s.clone(), Settings { within_ms: 7_000, early_ms: 3_000, ..slides() }] {
            assert_eq!(has_play(&events, &s), matches, "delay {delay}, {s:?}");
            // With "joined" the impression hangs on the same condition, else on none.
            let impressions = members(&events, &s).iter().any(|m| m.side == Side::Impressions);
            assert_eq!(impressions, matches || !s.impressions_joined, "delay {delay}, {s:?}");
        }
    }
}

#[test]
fn an_epoch_begins_at_its_start_and_ends_before_the_next() {
    let end = 30 * MINUTE;
    for (time, start) in [(0, 0), (end - 1, 0), (end, 30), (2 * end - 1, 30), (2 * end, 60)] {
        let events = [at(impression("R1", "A", 0), time)];
        let expected = format!("Impressions A {start} - R1");
        assert_members(&events, &Settings::default(), &[&expected]);
    }
}

#[test]
fn a_play_across_the_boundary_counts_where_the_setting_says() {
    let events = [impression("R1", "A", 29), play("R1", "A", 31)];
    let cohort = Settings::default();
    assert_members(&events, &cohort, &["Impressions A 0 - R1", "Plays A 0 - R1"]);
    let watched = Settings { epoch_of_play_is_play: true, ..Settings::default() };
    assert_members(&events, &watched, &["Impressions A 0 - R1", "Plays A 30 - R1"]);
}

#[test]
fn a_play_counts_in_one_cell_for_every_matching_impression() {
    let events = [
        impression("R1", "A", 10),
        impression("R1", "A", 40),
        impression("R1", "A", 61),
        impression("R1", "A", 90),
        play("R1", "A", 60),
    ];
    // 00:10, 00:40 and (by `early`) 01:01 match, 01:30 does not but shares the epoch of 01:01.
    let s = Settings { epochs_ms: vec![30 * MINUTE], ..Settings::default() };
    let expected = [
        "Impressions A 0 - R1",
        "Impressions A 30 - R1",
        "Impressions A 60 - R1",
        "Impressions A 90 - R1",
        "Plays A 0 - R1",
        "Plays A 30 - R1",
        "Plays A 60 - R1",
    ];
    assert_members(&events, &s, &expected);
    // In its own epoch it is one member, with a proof from each of the three.
    let s = Settings { epoch_of_play_is_play: true, ..s };
    let all = proofs(&events, &s);
    let plays: Vec<_> = all.iter().filter(|(member, _)| member.side == Side::Plays).collect();
    assert_eq!(plays.len(), 1);
    assert_eq!(show(plays[0].0), "Plays A 60 - R1");
    assert_eq!(plays[0].1, &[[0, 4], [1, 4], [2, 4]]);
}

#[test]
fn a_play_without_a_match_is_no_member_under_any_setting() {
    for bits in 0..8 {
        let s = Settings {
            match_video: bits & 1 != 0,
            impressions_joined: bits & 2 != 0,
            epoch_of_play_is_play: bits & 4 != 0,
            ..Settings::default()
        };
        assert_members(&[play("R1", "A", 3)], &s, &[]);
        // Another request's impression of the same video does not help.
        assert!(!has_play(&[impression("R2", "A", 2), play("R1", "A", 3)], &s), "{s:?}");
    }
}

#[test]
fn the_video_of_a_cell_is_that_of_the_event_on_its_side() {
    let events = [impression("R1", "A", 29), play("R1", "B", 31)];
    let s = Settings { match_video: false, ..Settings::default() };
    assert_members(&events, &s, &["Impressions A 0 - R1", "Plays B 0 - R1"]);
    assert_members(&events, &slides(), &["Impressions A 0 - R1", "Plays B 30 - R1"]);
    assert_members(&events, &Settings::default(), &["Impressions A 0 - R1"]);
}

#[test]
fn joined_impressions_are_proved_by_pairs() {
    let events = [play("R1", "A", 3), impression("R1", "A", 1), play("R1", "A", 4)];
    let all: Vec<_> = proofs(&events, &slides()).into_values().collect();
    assert_eq!(all, [[[1, 0], [1, 2]], [[1, 0], [1, 2]]]);
}

#[test]
fn joined_with_the_impressions_epoch() {
    let events = [impression("R1", "A", 29), impression("R2", "A", 29), play("R1", "A", 31)];
    let s = Settings { impressions_joined: true, ..Settings::default() };
    assert_members(&events, &s, &["Impressions A 0 - R1", "Plays A 0 - R1"]);
}

#[test]
fn every_length_of_epoch_gives_its_own_cells() {
    let events = [impression("R1", "A", 31), impression("R1", "A", 32), play("R1", "A", 33)];
    let s = Settings { epochs_ms: vec![30 * MINUTE, MINUTE], ..Settings::default() };
    let cell = |epoch_ms, minute: i64| Cell {
        video: "A".to_owned(),
        epoch_ms,
        epoch_start_ms: minute * MINUTE,
        slice: String::new(),
    };
    let counts = counts(&members(&events, &s));
    let expected = BTreeMap::from([
        (cell(MINUTE, 31), (1, 1)),
        (cell(MINUTE, 32), (1, 1)),
        (cell(30 * MINUTE, 30), (1, 1)),
    ]);
    assert_eq!(counts, expected);
}

#[test]
fn the_same_start_in_two_lengths_is_two_cells() {
    let s = Settings { epochs_ms: vec![30 * MINUTE, MINUTE], ..Settings::default() };
    assert_eq!(members(&[impression("R1", "A", 30)], &s).len(), 2);
}

#[test]
fn grouping_sets_count_an_event_once_each_and_absent_is_null() {
    let s = Settings { slices: grouping_sets(&["", "country", "device country"]), ..slides() };
    let events = [
        with(impression("R1", "A", 1), "country", "\"US\""),
        with(with(play("R1", "A", 2), "device", "3"), "country", "null"),
    ];
    let expected = [
        "Impressions A 0 - R1",
        r#"Impressions A 0 {"country":"US"} R1"#,
        r#"Impressions A 0 {"country":"US","device":null} R1"#,
        "Plays A 0 - R1",
        r#"Plays A 0 {"country":null} R1"#,
        r#"Plays A 0 {"country":null,"device":3} R1"#,
    ];
    assert_members(&events, &s, &expected);
}

#[test]
fn a_play_takes_the_slice_from_where_it_takes_the_epoch() {
    let events = [
        with(impression("R1", "A", 1), "country", "\"US\""),
        with(impression("R1", "A", 2), "country", "\"DE\""),
        with(play("R1", "A", 3), "country", "\"FR\""),
    ];
    let cohort = Settings { slices: grouping_sets(&["country"]), ..Settings::default() };
    let expected = [
        r#"Impressions A 0 {"country":"DE"} R1"#,
        r#"Impressions A 0 {"country":"US"} R1"#,
        r#"Plays A 0 {"country":"DE"} R1"#,
        r#"Plays A 0 {"country":"US"} R1"#,
    ];
    assert_members(&events, &cohort, &expected);
    let watched = Settings { epoch_of_play_is_play: true, ..cohort };
    let expected = [expected[0], expected[1], r#"Plays A 0 {"country":"FR"} R1"#];
    assert_members(&events, &watched, &expected);
}

#[test]
fn only_the_empty_set_counts_everybody() {
    let s = Settings { slices: grouping_sets(&["country"]), ..Settings::default() };
    assert_members(&[impression("R1", "A", 1)], &s, &[r#"Impressions A 0 {"country":null} R1"#]);
}

#[test]
fn names_of_attributes_are_escaped_in_a_slice() {
    let name = "a\"b\\c\n\u{1}é".to_owned();
    let s = Settings { slices: vec![vec![name.clone()]], ..Settings::default() };
    let members = members(&[with(impression("R1", "A", 1), &name, "1")], &s);
    let slices: Vec<_> = members.iter().map(|member| member.cell.slice.as_str()).collect();
    assert_eq!(slices, [r#"{"a\"b\\c\n\u0001é":1}"#]);
}

#[test]
fn what_is_configured_twice_is_proved_once() {
    let s = Settings {
        epochs_ms: vec![MINUTE, MINUTE],
        slices: grouping_sets(&["a b", "b a", "a b a"]),
        ..Settings::default()
    };
    let all = proofs(&[impression("R1", "A", 1)], &s);
    assert_eq!(all.into_values().collect::<Vec<_>>(), [[[0]]]);
}

/// Events that are close enough together to match now and then, from a small generator.
fn history(seed: u64) -> Vec<Event> {
    let mut state = seed;
    let mut draw = |below: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut events = vec![];
    for _ in 0..60 {
        let kind = if draw(2) == 0 { Kind::Impression } else { Kind::Play };
        let request = format!("R{}", draw(6));
        let video = format!("V{}", draw(3));
        let event = event(kind, &request, &video, draw(180) as i64);
        events.push(with(event, "country", if draw(2) == 0 { "\"US\"" } else { "null" }));
    }
    events
}

#[test]
fn order_and_duplicates_change_nothing() {
    for seed in 0..50 {
        let events = history(seed);
        let mut reversed = events.clone();
        reversed.reverse();
        let mut sorted = events.clone();
        sorted.sort();
        let twice = [events.clone(), reversed.clone()].concat();
        for s in [Settings::default(), slides()] {
            let s = Settings { slices: grouping_sets(&["", "country"]), ..s };
            let expected = members(&events, &s);
            assert!(expected.iter().any(|member| member.side == Side::Plays), "seed {seed}");
            for other in [&reversed, &sorted, &twice] {
                assert_eq!(members(other, &s), expected, "seed {seed}, {s:?}");
            }
        }
    }
}

#[test]
fn a_proof_makes_its_member_alone_and_without_all_proofs_it_is_gone() {
    for seed in 0..10 {
        let events = history(seed);
        for s in [Settings::default(), slides()] {
            for (member, proofs) in proofs(&events, &s) {
                for proof in &proofs {
                    let alone: Vec<_> = proof.iter().map(|&index| events[index].clone()).collect();
                    assert!(members(&alone, &s).contains(&member), "seed {seed}, {member:?}");
                }
                // The first index is the impression, and no proof does without one.
                let used: BTreeSet<usize> = proofs.iter().map(|proof| proof[0]).collect();
                let rest: Vec<_> = (0..events.len())
                    .filter(|index| !used.contains(index))
                    .map(|index| events[index].clone())
                    .collect();
                assert!(!members(&rest, &s).contains(&member), "seed {seed}, {member:?}");
            }
        }
    }
}

#[test]
fn counts_are_cardinalities() {
    let events = [
        impression("R1", "A", 1),
        impression("R1", "A", 2),
        impression("R2", "A", 3),
        impression("R3", "A", 3),
        play("R2", "A", 4),
        play("R2", "A", 5),
        play("R3", "A", 5),
        play("R4", "B", 5),
    ];
    let counts = counts(&members(&events, &Settings::default()));
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [(3, 2)]);
}

#[test]
fn csv_with_one_length() {
    let s = Settings { slices: grouping_sets(&["country", ""]), ..Settings::default() };
    let events = [
        with(impression("R1", "b", 40), "country", "\"US\""),
        with(impression("R2", "b", 5), "country", "\"US\""),
        with(play("R2", "b", 35), "country", "\"DE\""),
        impression("R3", "B,\"x\"", 1),
        impression("R3", "é", 1),
    ];
    let expected = "\
video_id,epoch_start_ms,slice,impressions,plays
\"B,\"\"x\"\"\",0,,1,0
\"B,\"\"x\"\"\",0,\"{\"\"country\"\":null}\",1,0
b,0,,1,1
b,0,\"{\"\"country\"\":\"\"US\"\"}\",1,1
b,1800000,,1,0
b,1800000,\"{\"\"country\"\":\"\"US\"\"}\",1,0
é,0,,1,0
é,0,\"{\"\"country\"\":null}\",1,0
";
    assert_eq!(csv(&counts(&members(&events, &s)), false), expected);
}

#[test]
fn csv_with_several_lengths_sorts_by_start_before_length() {
    let s = Settings {
        epochs_ms: vec![30 * MINUTE, MINUTE],
        slices: grouping_sets(&["", "c"]),
        ..Settings::default()
    };
    let events = [impression("R1", "a", 30), impression("R1", "a", 1)];
    let expected = "\
video_id,epoch_start_ms,slice,impressions,plays,epoch_ms
a,0,,1,0,1800000
a,0,\"{\"\"c\"\":null}\",1,0,1800000
a,60000,,1,0,60000
a,60000,\"{\"\"c\"\":null}\",1,0,60000
a,1800000,,1,0,60000
a,1800000,,1,0,1800000
a,1800000,\"{\"\"c\"\":null}\",1,0,60000
a,1800000,\"{\"\"c\"\":null}\",1,0,1800000
";
    assert_eq!(csv(&counts(&members(&events, &s)), true), expected);
}

#[test]
fn csv_of_nothing_is_its_header() {
    let empty = csv(&BTreeMap::new(), false);
    assert_eq!(empty, "video_id,epoch_start_ms,slice,impressions,plays\n");
}

#[test]
fn csv_quotes_each_character_that_needs_it() {
    for (video, field) in [
        ("a\nb", "\"a\nb\""),
        ("a\rb", "\"a\rb\""),
        ("a,b", "\"a,b\""),
        ("a\"b", "\"a\"\"b\""),
        ("a b;c", "a b;c"),
    ] {
        let text =
            csv(&counts(&members(&[impression("R1", video, 1)], &Settings::default())), false);
        let row = format!("{field},0,,1,0\n");
        assert_eq!(text, format!("video_id,epoch_start_ms,slice,impressions,plays\n{row}"));
    }
}
