//! Tests of reading files: every form gives the same lines, and damage is an error.

use super::*;
use std::io::Write;

fn lines_of(set: &FileSet) -> Result<Vec<(u64, String)>, FileError> {
    let mut chunk = Chunk::default();
    let mut lines = Vec::new();
    while set.next_chunk(0, &mut chunk)? {
        chunk.for_each_line(|number, line| {
            lines.push((number, String::from_utf8_lossy(line).into_owned()));
        });
    }
    Ok(lines)
}

fn read(name: &str, bytes: &[u8]) -> Result<Vec<(u64, String)>, FileError> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).expect("it is written");
    lines_of(&FileSet::open(&[(Kind::Play, path)])?)
}

fn numbered(lines: &[&str]) -> Vec<(u64, String)> {
    (1..).zip(lines.iter().map(|l| (*l).to_owned())).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    writer.write_all(bytes).expect("memory takes all");
    writer.finish().expect("memory takes all")
}

#[test]
fn every_form_gives_the_same_lines() {
    let text = b"one\ntwo\r\nthree";
    let expected = numbered(&["one", "two", "three"]);
    assert_eq!(read("x", text).expect("plain"), expected);
    assert_eq!(read("x", b"\xef\xbb\xbfone\ntwo\nthree\n").expect("with a mark"), expected);
    assert_eq!(read("x", &gzip(text)).expect("gzip"), expected);
    let joined = [gzip(b"one\ntw"), gzip(b"o\nthree")].concat();
    assert_eq!(read("x", &joined).expect("two gzip members"), expected);
    let zstd = zstd::encode_all(&text[..], 1).expect("memory takes all");
    assert_eq!(read("x", &zstd).expect("zstd"), expected);
    assert_eq!(read("x", b"").expect("empty"), vec![]);
    assert_eq!(read("x", b"\n \na\n").expect("blank"), vec![(3, "a".to_owned())]);
}

#[test]
fn lines_longer_than_a_chunk_stay_whole() {
    let long = "x".repeat(3 * CHUNK_BYTES + 17);
    let text = format!("a\n{long}\nb\n");
    assert_eq!(read("x", text.as_bytes()).expect("it reads"), numbered(&["a", &long, "b"]));
}

#[test]
fn a_cut_gzip_is_an_error_and_not_a_shorter_file() {
    let whole = gzip("a line of text\n".repeat(100_000).as_bytes());
    for end in [11, whole.len() / 2, whole.len() - 1] {
        let error = read("x", &whole[..end]).expect_err("it is cut");
        assert!(matches!(error, FileError::Read { .. }), "{end}: {error}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let missing = PathBuf::from("no/such/file");
    let error = FileSet::open(&[(Kind::Play, missing)]).err().expect("it is missing");
    assert!(error.to_string().starts_with("cannot open no/such/file: "), "{error}");
}

/// A file of row groups of this many rows: text `a`, and `b`, its number.
fn parquet(rows: usize, group: usize) -> tempfile::NamedTempFile {
    use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    let a: ArrayRef = Arc::new(StringArray::from_iter_values((1..=rows).map(|n| format!("t{n}"))));
    let b: ArrayRef = Arc::new(Int64Array::from_iter_values(1..=rows as i64));
    let batch = RecordBatch::try_from_iter([("a", a), ("b", b)]).expect("equal lengths");
    let properties = ::parquet::file::properties::WriterProperties::builder()
        .set_max_row_group_row_count(Some(group))
        .build();
    let file = tempfile::NamedTempFile::new().expect("a file");
    let mut writer = ::parquet::arrow::ArrowWriter::try_new(
        file.reopen().expect("it is there"),
        batch.schema(),
        Some(properties),
    )
    .expect("a schema that Parquet knows");
    writer.write(&batch).expect("there is room");
    writer.close().expect("there is room");
    file
}

#[test]
fn row_groups_keep_the_numbers_of_their_rows_and_show_whole_records() {
    let file = parquet(50_000, 20_000);
    for needed in [None, Some(vec!["a".to_owned()]), Some(vec!["none".to_owned()])] {
        let inputs = [(Kind::Play, file.path().to_owned())];
        let set = FileSet::open_columns(&inputs, &|_| needed.clone()).expect("it opens");
        assert_eq!(set.records(150), Some(50_000));
        let (mut chunk, mut groups, mut next) = (Chunk::default(), 0, 1);
        while set.next_chunk(0, &mut chunk).expect("it reads") {
            let mut group = chunk.rows.take().expect("rows, not lines");
            groups += 1;
            while let Some(rows) = group.next_rows().expect("it reads") {
                assert_eq!(rows.first, next);
                let columns = rows.columns.num_columns();
                assert_eq!(
                    columns,
                    if needed.as_ref().is_some_and(|n| n[0] == "a") { 1 } else { 2 }
                );
                for row in (0..rows.len()).step_by(977) {
                    let mut record = Vec::new();
                    group.write_record(&rows, row, &mut record).expect("it reads");
                    let number = rows.first + row as u64;
                    let expected = format!("{{\"a\":\"t{number}\",\"b\":{number}}}");
                    assert_eq!(String::from_utf8_lossy(&record), expected);
                }
                next += rows.len() as u64;
            }
        }
        assert_eq!((groups, next), (3, 50_001));
    }
}

#[test]
fn texts_are_words_where_every_page_of_a_row_group_has_them() {
    use arrow_array::{ArrayRef, RecordBatch, StringArray};
    use arrow_schema::DataType;
    // The first row group has few words; the second more than its dictionary may have, so that its
    // last pages hold texts; the third none.
    let text = |n: usize| match n / 20_000 {
        0 => Some(format!("few {}", n % 5)),
        1 => Some(format!("one of many {n}")),
        _ => None,
    };
    let words: ArrayRef = Arc::new((0..50_000).map(text).collect::<StringArray>());
    let plain = words.clone();
    let batch = RecordBatch::try_from_iter([("words", words), ("plain", plain)]);
    let batch = batch.expect("equal lengths");
    let properties = ::parquet::file::properties::WriterProperties::builder()
        .set_max_row_group_row_count(Some(20_000))
        .set_dictionary_page_size_limit(100_000)
        .set_column_dictionary_enabled("plain".into(), false)
        .build();
    let file = tempfile::NamedTempFile::new().expect("a file");
    let out = file.reopen().expect("it is there");
    let writer = ::parquet::arrow::ArrowWriter::try_new(out, batch.schema(), Some(properties));
    let mut writer = writer.expect("a schema that Parquet knows");
    writer.write(&batch).expect("there is room");
    writer.close().expect("there is room");
    let inputs = [(Kind::Play, file.path().to_owned())];
    let needed = || Some(vec!["words".to_owned(), "plain".to_owned()]);
    let set = FileSet::open_columns(&inputs, &|_| needed()).expect("it opens");
    let (mut chunk, mut are_words, mut next) = (Chunk::default(), Vec::new(), 0);
    while set.next_chunk(0, &mut chunk).expect("it reads") {
        let mut group = chunk.rows.take().expect("rows, not lines");
        let mut of_group = Vec::new();
        while let Some(rows) = group.next_rows().expect("it reads") {
            let form = |column: &ArrayRef| matches!(column.data_type(), DataType::Dictionary(..));
            of_group.push([form(rows.columns.column(0)), form(rows.columns.column(1))]);
            for row in 0..rows.len() {
                let mut record = Vec::new();
                write_object(&rows.columns, row, &mut record);
                let text = serde_json::to_string(&text(next)).expect("a text is JSON");
                let expected = format!("{{\"words\":{text},\"plain\":{text}}}");
                assert_eq!(String::from_utf8_lossy(&record), expected);
                next += 1;
            }
        }
        of_group.dedup();
        are_words.push(of_group);
    }
    assert_eq!(next, 50_000);
    assert_eq!(are_words[0], [[true, false]]);
    assert_eq!(are_words[1], [[false, false]]);
}
