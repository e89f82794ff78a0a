//! Rows of columns: each gives what its JSON object gives.

use super::alike::{judge, line_of};
use super::*;
use crate::files::write_object;
use arrow_array::types::Int32Type;
use arrow_array::*;
use arrow_schema::{Field, Fields as ArrowFields};
use std::sync::Arc;

/// Columns under their names, of which several may be the same.
fn table(columns: Vec<(&str, ArrayRef)>) -> StructArray {
    let field = |(name, column): &(&str, ArrayRef)| {
        Arc::new(Field::new(*name, column.data_type().clone(), true))
    };
    let fields: ArrowFields = columns.iter().map(field).collect();
    StructArray::new(fields, columns.into_iter().map(|(_, column)| column).collect(), None)
}

/// Every row is what its JSON is for `serde_json`. Returns how many are good.
#[track_caller]
fn check(mapping: Mapping, rows: &StructArray) -> usize {
    let decoder = Decoder::new(mapping);
    let (mut good, mut next) = (0, 0);
    decoder.decode_rows(&decoder.find_columns(rows), |row, event| {
        let mut record = Vec::new();
        write_object(rows, row, &mut record);
        let text = String::from_utf8_lossy(&record).into_owned();
        assert_eq!(row, next, "every row in its turn");
        next += 1;
        good += usize::from(event.is_ok());
        assert_eq!(line_of(event), judge(&decoder, &record), "{text}");
    });
    assert_eq!(next, rows.len());
    good
}

fn texts() -> Vec<Option<&'static str>> {
    let long = "2b193175-4d42-4170-a537-be7e0468ba59";
    vec![Some(long), Some("a"), Some("\"é\n"), None, Some(""), Some("日本語日本語日本語")]
}

fn ids() -> Vec<(&'static str, ArrayRef)> {
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![7; 6]));
    vec![("r", Arc::new(StringArray::from(vec!["a"; 6]))), ("v", numbers.clone()), ("t", numbers)]
}

/// The three standard columns, with others in place of or beside them.
fn with(columns: Vec<(&'static str, ArrayRef)>) -> StructArray {
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let kept = ids().into_iter().filter(|(name, _)| !names.contains(name));
    table(kept.chain(columns).collect())
}

#[test]
fn texts_of_every_form() {
    let forms: [ArrayRef; 3] = [
        Arc::new(StringArray::from(texts())),
        Arc::new(LargeStringArray::from(texts())),
        Arc::new(StringViewArray::from(texts())),
    ];
    for form in forms {
        assert_eq!(check(mapping(), &with(vec![("r", form.clone())])), 4);
        assert_eq!(check(mapping(), &with(vec![("d", form.clone())])), 6);
        assert_eq!(check(mapping(), &with(vec![("n", form)])), 1);
    }
}

#[test]
fn numbers_of_every_width() {
    let numbers: [ArrayRef; 9] = [
        Arc::new(Int8Array::from(vec![Some(1), Some(-1), None, Some(0), Some(127), Some(5)])),
        Arc::new(Int16Array::from(vec![1, -1, 0, 300, 5, 6])),
        Arc::new(Int32Array::from(vec![1, -1, 0, 70_000, 5, 6])),
        Arc::new(Int64Array::from(vec![1, -1, 0, i64::MAX, i64::MIN, 6])),
        Arc::new(UInt8Array::from(vec![1, 2, 0, 255, 5, 6])),
        Arc::new(UInt16Array::from(vec![1, 2, 0, 65_535, 5, 6])),
        Arc::new(UInt32Array::from(vec![1, 2, 0, u32::MAX, 5, 6])),
        Arc::new(UInt64Array::from(vec![Some(1), None, Some(0), Some(u64::MAX), Some(5), Some(6)])),
        Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, None, None, None])),
    ];
    let doubles: [ArrayRef; 2] = [
        Arc::new(Float32Array::from(vec![0.1, -0.0, 5.0, f32::NAN, f32::INFINITY, 1.5e20])),
        Arc::new(Float64Array::from(vec![0.1, -0.0, 5.0, f64::NAN, f64::INFINITY, 1.5e20])),
    ];
    for column in numbers.iter().chain(&doubles) {
        for name in ["r", "v", "t", "n", "x", "b"] {
            for time_unit in [TimeUnit::Milliseconds, TimeUnit::Seconds, TimeUnit::Microseconds] {
                let mut mapping = Mapping { time_unit, ..mapping() };
                mapping.attributes.push(declared("x", Type::Double, true));
                mapping.attributes.push(declared("b", Type::Bool, false));
                let mut columns = vec![(name, column.clone())];
                if name != "b" {
                    columns.push(("b", Arc::new(BooleanArray::from(vec![true; 6]))));
                }
                check(mapping, &with(columns));
            }
        }
    }
}

#[test]
fn times_become_milliseconds() {
    let times =
        |unit: i64| -> Vec<i64> { [0, 1, -1, 999, 1_479_686_401, 2].map(|t| t * unit).into() };
    let forms: [ArrayRef; 4] = [
        Arc::new(TimestampSecondArray::from(times(1))),
        Arc::new(TimestampMillisecondArray::from(times(1_000)).with_timezone("+00:00")),
        Arc::new(TimestampMicrosecondArray::from(times(1_000_000))),
        Arc::new(TimestampNanosecondArray::from(times(1_000_000_000))),
    ];
    for form in forms {
        assert_eq!(check(mapping(), &with(vec![("t", form)])), 5);
    }
}

#[test]
fn objects_lists_and_what_json_has_no_form_for() {
    let inner = table(vec![
        ("r", Arc::new(StringViewArray::from(texts()))),
        ("deep", Arc::new(table(vec![("d", Arc::new(StringArray::from(texts())))]))),
    ]);
    let (fields, columns, _) = inner.into_parts();
    let present = vec![true, true, false, true, true, true];
    let object: ArrayRef = Arc::new(StructArray::new(fields, columns, Some(present.into())));
    let lists = vec![Some(vec![Some(1)]), None, Some(vec![]), None, None, Some(vec![None])];
    let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists));
    let nested = Mapping {
        request_id: path("c.r"),
        attributes: vec![(declared("d", Type::String, true).0, path("c.deep.d"))],
        ..mapping()
    };
    assert_eq!(check(nested.clone(), &with(vec![("c", object.clone())])), 3);
    assert_eq!(check(nested.clone(), &with(vec![("c", lists.clone())])), 0);
    assert_eq!(check(nested, &with(vec![])), 0);
    let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![&b"x"[..]; 6]));
    let nothing: ArrayRef = Arc::new(NullArray::new(6));
    for (odd, good) in [(object, 1), (lists, 3), (bytes, 6), (nothing, 6)] {
        assert_eq!(check(mapping(), &with(vec![("d", odd.clone())])), good);
        check(mapping(), &with(vec![("r", odd)]));
    }
}

#[test]
fn of_several_columns_of_one_name_the_last_counts() {
    let column = |text: &'static str| -> ArrayRef { Arc::new(StringArray::from(vec![text; 6])) };
    let mut columns = ids();
    columns.extend([("d", column("first")), ("d", column("last"))]);
    assert_eq!(check(mapping(), &table(columns)), 6);
}

#[test]
fn what_only_a_log_knows_is_missing() {
    let mut of_record = mapping();
    of_record.attributes.push((declared("k", Type::String, true).0, path("$record.key")));
    let rows = with(vec![("$record", Arc::new(StringArray::from(vec!["x"; 6])))]);
    assert_eq!(check(of_record, &rows), 6);
    let keyed = Mapping { request_id: path("$record.key"), ..mapping() };
    let mut dead = 0;
    let decoder = Decoder::new(keyed);
    let columns = decoder.find_columns(&with(vec![]));
    decoder.decode_rows(&columns, |_, event| dead += usize::from(event.is_err()));
    assert_eq!(dead, 6);
}

/// Texts by their places in a dictionary.
fn words(places: Vec<Option<i32>>, dictionary: Vec<Option<&str>>) -> ArrayRef {
    let texts = Arc::new(StringArray::from(dictionary));
    Arc::new(DictionaryArray::<Int32Type>::new(Int32Array::from(places), texts))
}

#[test]
fn words_of_a_dictionary_are_the_texts_that_they_stand_for() {
    let places = vec![Some(0), Some(1), Some(2), Some(3), Some(4), Some(5)];
    let some = vec![Some(0), None, Some(2), Some(0), Some(5), None];
    // With words that are null, that no row has (the empty one and the null) and that rows share.
    let (all, whole): (_, Vec<_>) = (texts(), texts().into_iter().flatten().map(Some).collect());
    let forms = [
        (words(places, all.clone()), 4),
        (words(some, all), 4),
        (words(vec![Some(1); 6], whole.clone()), 6),
        (words(vec![Some(0), Some(3), Some(4), None, Some(3), Some(1)], whole), 3),
    ];
    for (form, good) in forms {
        assert_eq!(check(mapping(), &with(vec![("r", form.clone())])), good);
        assert_eq!(check(mapping(), &with(vec![("v", form.clone())])), good);
        assert_eq!(check(mapping(), &with(vec![("d", form.clone())])), 6);
        check(mapping(), &with(vec![("n", form.clone())]));
        check(mapping(), &with(vec![("t", form.clone())]));
        let (fields, columns, _) = table(vec![("r", form)]).into_parts();
        let present = vec![true, false, true, true, false, true];
        let object: ArrayRef = Arc::new(StructArray::new(fields, columns, Some(present.into())));
        let nested = Mapping { request_id: path("c.r"), ..mapping() };
        check(nested, &with(vec![("c", object)]));
    }
}

#[test]
fn bad_rows_in_any_block_are_told_from_good_ones() {
    for rows in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5] {
        let place = |row: usize| Some(if row % 7 == 3 { 1 } else { 0 });
        let ids = words((0..rows).map(place).collect(), vec![Some("a"), Some("")]);
        let time = |row: usize| if row.is_multiple_of(31) { -1 } else { row as i64 };
        let times: ArrayRef = Arc::new(Int64Array::from_iter_values((0..rows).map(time)));
        let videos: ArrayRef = Arc::new(StringViewArray::from(vec!["v"; rows]));
        let bad = (0..rows).filter(|row| row % 7 == 3 || row % 31 == 0).count();
        let rows = table(vec![("r", ids), ("v", videos), ("t", times)]);
        assert_eq!(check(mapping(), &rows), rows.len() - bad);
    }
}

#[test]
fn places_are_given_where_ids_are_words_of_the_record_itself() {
    let ids = || words(vec![Some(1), Some(0), None, Some(1), Some(1), Some(0)], vec![Some("a"); 2]);
    let decoder = Decoder::new(mapping());
    let columns = decoder.find_columns(&with(vec![("r", ids())]));
    assert!(columns.videos().is_none(), "numbers have no places");
    let found = columns.request_ids().expect("they are words");
    let places: Vec<_> = (0..6).map(|row| found.place(row)).collect();
    assert_eq!(places, [Some(1), Some(0), None, Some(1), Some(1), Some(0)]);
    assert_eq!(found.count(), 2);
    let others = decoder.find_columns(&with(vec![("r", ids())]));
    let others = others.request_ids().expect("they are words");
    assert!(found.share_dictionary(&found.clone()) && !found.share_dictionary(others));
    // Under an object that may be null a row may have a place and no id.
    let nested = Decoder::new(Mapping { request_id: path("c.r"), ..mapping() });
    let object: ArrayRef = Arc::new(table(vec![("r", ids())]));
    assert!(nested.find_columns(&with(vec![("c", object)])).request_ids().is_none());
}
