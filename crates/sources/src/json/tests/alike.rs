//! Records that are laid out alike: the fastest way gives what `serde_json` gives, whatever is done
//! to a record.

use super::*;
use proptest::prelude::*;
use std::fmt::Debug;

fn nested() -> Mapping {
    Mapping {
        request_id: path("c.r"),
        attributes: vec![
            declared("d", Type::String, true),
            declared("n", Type::Int, true),
            declared("x", Type::Double, true),
            declared("b", Type::Bool, true),
        ],
        ..mapping()
    }
}

/// What the record is by `serde_json`, which shares nothing with the fast ways.
pub(super) fn judge(decoder: &Decoder, record: &[u8]) -> String {
    let raws = decoder.fields.read_any(record);
    let values = raws.and_then(|raws| decoder.values(raws.into_iter(), &RecordMeta::default()));
    line_of(values.as_ref().map_err(Clone::clone))
}

pub(super) fn line_of(event: Result<impl Debug, DeadReason>) -> String {
    match event {
        Ok(values) => format!("{values:?}"),
        Err(reason) => format!("dead: {reason}"),
    }
}

fn one(decoder: &Decoder, record: &[u8]) -> String {
    let mut found = String::new();
    decoder.decode(record, &RecordMeta::default(), |event| found += &line_of(event));
    found
}

fn lines(decoder: &Decoder, text: &[u8]) -> Vec<(u64, Vec<u8>, String)> {
    let mut found = Vec::new();
    decoder.decode_lines(text, 5, |number, record, event| {
        found.push((number, record.to_vec(), line_of(event)));
    });
    found
}

fn stretch(decoder: &Decoder, records: &[&[u8]]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let records = records.iter().map(|record| (*record, RecordMeta::default()));
    decoder.decode_all(records, &mut b"of before".to_vec(), |number, event| {
        found.push((number, line_of(event)));
    });
    found
}

/// A decoder that has met these records, each of which it must have learned.
fn decoder_of(mapping: Mapping, records: &[&str]) -> Decoder {
    let decoder = Decoder::new(mapping);
    for record in records {
        one(&decoder, record.as_bytes());
        let mut values = decoder.without_fields(&RecordMeta::default());
        let end = decoder.read_alike(record, &RecordMeta::default(), &mut values);
        assert_eq!(end, Some(record.len()), "not learned: {record}");
        assert_eq!(line_of(Ok(&values)), judge(&decoder, record.as_bytes()));
    }
    decoder
}

const FLAT: &str = r#"{"r":"2b193175-4d42-4170-a537-be7e0468ba59","v":"80000035","t":1479686401614,"d":"tv","row":10,"tags":["a",{"b":[1]}],"n":-3,"z":null}"#;
const SPACED: &str =
    r#"{ "v": 7, "t": 0, "c": {"r": "é\u007f", "more": {"y": 0.5e-3}}, "x": 1.25, "b": true }"#;
const DEEP: &str = r#"{"c":{"k":{},"r":"a"},"t":123456789012345,"v":"日本","n":99999999,"b":null}"#;

#[test]
fn what_is_learned_is_read_as_it_was() {
    decoder_of(mapping(), &[FLAT]);
    decoder_of(nested(), &[&SPACED.replace("\\u007f", "\u{7f}"), DEEP]);
}

#[test]
fn what_cannot_be_told_from_the_layout_is_not_learned() {
    for (mapping, record) in [
        (mapping(), r#"{"r":"a","r":"b","v":"b","t":5}"#),
        (mapping(), r#"{"r":"a","v":"b"}"#),
        (mapping(), r#"{"r":"a","v":"b","t":5,"d":{}}"#),
        (mapping(), r#"{"r":"a","v":"b","t":5,"d":[]}"#),
        (mapping(), "{\"r\":\"a\",\n\"v\":\"b\",\"t\":5}"),
        (nested(), r#"{"c":{"r":"a"},"c":{"q":1},"v":"b","t":5}"#),
        (nested(), r#"{"c":{"r":"a"},"c":7,"v":"b","t":5}"#),
    ] {
        let decoder = Decoder::new(mapping);
        for _ in 0..20 {
            assert_eq!(one(&decoder, record.as_bytes()), judge(&decoder, record.as_bytes()));
        }
        let mut values = decoder.without_fields(&RecordMeta::default());
        let read = decoder.read_alike(record, &RecordMeta::default(), &mut values);
        assert_eq!(read, None, "{record}");
    }
}

#[test]
fn a_field_that_one_layout_lacks_is_absent_again() {
    let decoder = decoder_of(mapping(), &[r#"{"r":"a","v":"b","t":5,"d":"tv"}"#]);
    let records = [r#"{"r":"a","v":"b","t":6,"d":"tv"}"#, r#"{"r":"a","v":"b","t":7}"#];
    for record in records.iter().cycle().take(6) {
        assert_eq!(one(&decoder, record.as_bytes()), judge(&decoder, record.as_bytes()));
    }
    let text = records.repeat(3).join("\n");
    for (number, record, event) in lines(&decoder, text.as_bytes()) {
        assert_eq!(event, judge(&decoder, &record), "line {number}");
    }
}

#[test]
fn lines_keep_their_numbers_and_every_ending() {
    let decoder = Decoder::new(mapping());
    let good = |t: u32| format!(r#"{{"r":"a","v":"b","t":{t}}}"#);
    let text = [&good(1), "\n\n \r\n", &good(2), "\r\n", &good(3), " \n x\n", &good(4)].concat();
    let found = lines(&decoder, text.as_bytes());
    let numbers: Vec<u64> = found.iter().map(|(number, ..)| *number).collect();
    assert_eq!(numbers, [5, 8, 9, 10, 11]);
    for (number, record, event) in &found {
        assert_eq!(*event, judge(&decoder, record), "line {number}");
        assert_eq!(record.trim_ascii(), record, "line {number}");
    }
    // One bad byte spoils no other line.
    let text = [good(1).as_bytes(), b"\n\xff\n", good(2).as_bytes()].concat();
    let dead = lines(&decoder, &text).iter().map(|l| l.2.starts_with("dead")).collect::<Vec<_>>();
    assert_eq!(dead, [false, true, false]);
}

#[test]
fn each_record_of_a_stretch_has_a_time_a_key_and_headers_of_its_own() {
    let decoder = decoder_of(mapping(), &[FLAT]);
    let headers = [("h".into(), "1".into())];
    let metas = [
        RecordMeta { record_time_ms: Some(7), headers: &headers, ..RecordMeta::default() },
        RecordMeta { key: Some(b"k"), ..RecordMeta::default() },
        RecordMeta::default(),
    ];
    // The second one is laid out otherwise.
    let records = [FLAT, r#"{"r":"a","v":"b","t":"5"}"#, FLAT, FLAT];
    let records = records.map(str::as_bytes).into_iter().zip(metas.iter().cycle().copied());
    let (mut found, mut expected) = (Vec::new(), Vec::new());
    decoder.decode_all(records.clone(), &mut Vec::new(), |_, event| found.push(line_of(event)));
    for (record, meta) in records {
        decoder.decode(record, &meta, |event| expected.push(line_of(event)));
    }
    assert_eq!(found, expected);
}

#[test]
fn a_list_that_goes_on_in_the_next_line_is_no_record_whatever_was_met_before() {
    let broken = FLAT.replace(r#""a",{"b""#, "\"a\",\n{\"b\"");
    let text = format!("{broken}\n{FLAT}\n");
    let new = lines(&Decoder::new(mapping()), text.as_bytes());
    assert_eq!(new.iter().map(|(number, ..)| *number).collect::<Vec<_>>(), [5, 6, 7]);
    assert_eq!(lines(&decoder_of(mapping(), &[FLAT]), text.as_bytes()), new);
}

#[test]
fn a_record_at_the_limit_is_refused_in_lines_too() {
    let decoder = decoder_of(mapping(), &[r#"{"r":"a","v":"b","t":5,"z":"x"}"#]);
    let long = format!(r#"{{"r":"a","v":"b","t":5,"z":"{}"}}"#, "x".repeat(MAX_RECORD_BYTES));
    let found = lines(&decoder, long.as_bytes());
    assert!(found[0].2.starts_with("dead: the record has 16777"), "{}", found[0].2);
}

/// Something that is done to a record.
#[derive(Clone, Debug)]
enum Change {
    /// A byte at a place becomes another.
    Byte(usize, u8),
    /// Bytes are put in at a place.
    Insert(usize, String),
    /// So many bytes go.
    Remove(usize, usize),
    /// The record is cut off.
    Cut(usize),
}

fn change() -> impl Strategy<Value = Change> {
    let part = prop_oneof![
        Just("\"".to_owned()),
        Just("\\".to_owned()),
        Just("\\u00e9".to_owned()),
        Just(",\"d\":\"z\"".to_owned()),
        Just("null".to_owned()),
        Just("\u{1}".to_owned()),
        Just("é".to_owned()),
        "[0-9]{1,20}",
        "[.eE+-]{1,2}[0-9]{0,3}",
        "[a-f]{1,40}",
        "[\\[\\]{},: ]",
    ];
    let byte = prop_oneof![any::<u8>(), proptest::sample::select(b"\"\\,:{}[]0-.e \n\r".to_vec())];
    prop_oneof![
        (any::<usize>(), byte).prop_map(|(at, byte)| Change::Byte(at, byte)),
        (any::<usize>(), part).prop_map(|(at, part)| Change::Insert(at, part)),
        (any::<usize>(), 0..4_usize).prop_map(|(at, len)| Change::Remove(at, len)),
        any::<usize>().prop_map(Change::Cut),
    ]
}

fn changed(record: &str, changes: &[Change]) -> Vec<u8> {
    let mut bytes = record.as_bytes().to_vec();
    for change in changes {
        let len = bytes.len();
        match change {
            Change::Byte(at, byte) if len > 0 => bytes[at % len] = *byte,
            Change::Byte(..) => {}
            Change::Insert(at, part) => {
                let at = at % (len + 1);
                bytes.splice(at..at, part.bytes());
            }
            Change::Remove(at, count) => {
                let at = at % (len + 1);
                bytes.drain(at..(at + count).min(len));
            }
            Change::Cut(at) => bytes.truncate(at % (len + 1)),
        }
    }
    bytes
}

/// A value in place of another: records of one layout with every kind of value.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        "-?[0-9]{1,20}",
        "-?[0-9]{1,3}\\.[0-9]{1,3}([eE][+-]?[0-9]{1,3})?",
        "\"[a-zé日]{0,40}\"",
        "\"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\"",
        "\"[a-z\\\\\\x01]{0,36}\"",
        Just("true".to_owned()),
        Just("false".to_owned()),
        Just("null".to_owned()),
        Just("[1,{\"a\":\"]\"}]".to_owned()),
        Just("{}".to_owned()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_changed_record_is_what_it_is_for_serde_json(
        changes in proptest::collection::vec(change(), 0..4),
    ) {
        let spaced = SPACED.replace("\\u007f", "\u{7f}");
        let flat = decoder_of(mapping(), &[FLAT]);
        let nested = decoder_of(nested(), &[&spaced, DEEP]);
        for (decoder, record) in [(&flat, FLAT), (&nested, &*spaced), (&nested, DEEP)] {
            let record = changed(record, &changes);
            prop_assert_eq!(one(decoder, &record), judge(decoder, &record));
            let text = [&record[..], b"\n", FLAT.as_bytes(), b"\n", &record[..]].concat();
            for (_, line, event) in lines(decoder, &text) {
                prop_assert_eq!(event, judge(decoder, &line));
            }
            let records = [&record[..], FLAT.as_bytes(), b"", &record[..]];
            let expected = records.map(|record| judge(decoder, record));
            let found = stretch(decoder, &records);
            prop_assert_eq!(found, expected.into_iter().enumerate().collect::<Vec<_>>());
        }
    }

    #[test]
    fn every_kind_of_value_in_a_known_layout(
        values in proptest::collection::vec(value(), 6),
    ) {
        let [r, v, t, d, n, z] = &values[..] else { unreachable!("there are six") };
        let of = |r: &str, v: &str, t: &str, d: &str, n: &str, z: &str| {
            format!(r#"{{"r":{r},"v":{v},"z":{z},"t":{t},"d":{d},"n":{n}}}"#)
        };
        let good = of("\"a\"", "\"b\"", "5", "\"tv\"", "3", "1");
        let decoder = decoder_of(mapping(), &[&good]);
        // One of them at a time, so that the others do not hide it; then all.
        for record in [
            of(r, "1", "5", "null", "3", z),
            of("1", v, "5", "null", "3", z),
            of("1", "1", t, "null", "3", z),
            of("1", "1", "5", d, n, z),
            of(r, v, t, d, n, z),
        ] {
            prop_assert_eq!(one(&decoder, record.as_bytes()), judge(&decoder, record.as_bytes()));
        }
    }
}
