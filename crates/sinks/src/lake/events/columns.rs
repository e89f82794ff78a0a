//! Records as Parquet: the columns, and reading them back, byte for byte.
//!
//! | column | type | |
//! |---|---|---|
//! | `offset` | int64 | in its lane of its topic |
//! | `record_time_ms` | int64 | milliseconds since 1970 UTC; null where the log had none |
//! | `record_time` | timestamp, ms, UTC | the same |
//! | `key` | string | null where there is none, or it is no UTF-8 |
//! | `value` | string | the record, if it is JSON |
//! | `headers` | list of struct (name, value) | null where there are none |
//! | `key_bytes`, `value_bytes` | binary | what is no UTF-8, or no JSON |
//!
//! What is JSON and what is not is decided here and not by the mapping in force: so a file is a
//! function of the log alone, and whoever asks a `value` for a field never meets a text that is none.

use super::super::parquet::{new_writer_of, unwritable};
use super::{About, EventsBegin, EventsEnd, EventsLog, EventsOf, NewEvents, path_of};
use crate::lake::{FORMAT, LakeError};
use arrow_array::builder::{
    BinaryBuilder, Int64Builder, ListBuilder, StringBuilder, StructBuilder,
    TimestampMillisecondBuilder,
};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use serde::de::IgnoredAny;
use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

/// Records, and bytes of them, that are turned into columns at once.
const BATCH_ROWS: usize = 4096;
const BATCH_BYTES: usize = 4 << 20;

/// A row group is closed when it has so many bytes, about.
const ROW_GROUP_BYTES: usize = 8 << 20;

/// Under this name a file says what it covers.
const ABOUT: &str = "marquee.events";

/// A record of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRecord<'a> {
    /// Its offset.
    pub offset: u64,
    /// The log's own timestamp, milliseconds since 1970 UTC.
    pub record_time_ms: Option<i64>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its payload.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: &'a [(Cow<'a, str>, Cow<'a, str>)],
}

fn header_fields() -> Fields {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    Fields::from(vec![text("name"), text("value")])
}

/// The name that the specification of Parquet gives to the elements of lists.
fn header() -> Field {
    Field::new("element", DataType::Struct(header_fields()), false)
}

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let utc = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    Arc::new(Schema::new(vec![
        Field::new("offset", DataType::Int64, false),
        Field::new("record_time_ms", DataType::Int64, true),
        Field::new("record_time", utc, true),
        Field::new("key", DataType::Utf8, true),
        Field::new("value", DataType::Utf8, true),
        Field::new("headers", DataType::List(Arc::new(header())), true),
        Field::new("key_bytes", DataType::Binary, true),
        Field::new("value_bytes", DataType::Binary, true),
    ]))
});

/// The text of a record that is JSON as every reader knows it.
fn json(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    // Only escapes can name halves of characters, which some take and others refuse; whoever makes
    // texts of them sees that.
    let is_json = match text.contains("\\u") {
        true => serde_json::from_str::<serde_json::Value>(text).is_ok(),
        false => serde_json::from_str::<IgnoredAny>(text).is_ok(),
    };
    is_json.then_some(text)
}

/// Makes one file. It is in memory.
pub struct EventsWriter {
    of: EventsOf,
    log: EventsLog,
    begin: EventsBegin,
    file_bytes: usize,
    writer: Option<ArrowWriter<Vec<u8>>>,
    waiting: Waiting,
    records: u64,
    /// Record time of the first record, and the latest of all, this lane's earlier files included.
    first_ms: Option<i64>,
    latest_ms: i64,
}

impl EventsWriter {
    /// Begins one that is full when it has so many bytes, about.
    pub fn new(of: &EventsOf, log: &EventsLog, begin: EventsBegin, file_bytes: usize) -> Self {
        EventsWriter {
            of: of.clone(),
            log: log.clone(),
            begin,
            file_bytes,
            writer: None,
            waiting: Waiting::default(),
            records: 0,
            first_ms: None,
            latest_ms: begin.latest_before_ms,
        }
    }

    /// Takes the next record, and says whether the file is full.
    ///
    /// # Errors
    /// A bug.
    pub fn add(&mut self, record: &RawRecord<'_>) -> Result<bool, LakeError> {
        // A record without a time stands where the lane has come to.
        let time_ms = record.record_time_ms.unwrap_or(self.latest_ms);
        self.first_ms.get_or_insert(time_ms);
        self.latest_ms = self.latest_ms.max(time_ms);
        self.records += 1;
        self.waiting.push(record);
        if self.waiting.rows < BATCH_ROWS && self.waiting.bytes < BATCH_BYTES {
            return Ok(false);
        }
        self.write_waiting().map_err(unwritable)?;
        Ok(self.written_bytes() >= self.file_bytes as u64)
    }

    /// How many records it has.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Bytes that are written, about; what waits is not among them.
    pub fn written_bytes(&self) -> u64 {
        self.writer.as_ref().map_or(0, |w| (w.bytes_written() + w.in_progress_size()) as u64)
    }

    /// Ends it before an offset; `None` where it has no record.
    ///
    /// # Errors
    /// A bug.
    pub fn finish(mut self, to: u64) -> Result<Option<NewEvents>, LakeError> {
        let Some(first_ms) = self.first_ms else { return Ok(None) };
        self.write_waiting().map_err(unwritable)?;
        let mut writer = self.writer.take().expect("there is a record");
        let end = EventsEnd { to, latest_ms: self.latest_ms };
        let about = About {
            format: FORMAT,
            topic: self.of.topic.clone(),
            lane: self.of.lane,
            lanes: self.log.lanes,
            log: self.log.id.clone(),
            from: self.begin.from,
            to,
            latest_ms: self.latest_ms,
        };
        let about = serde_json::to_string(&about).expect("it is plain");
        writer.append_key_value_metadata(KeyValue::new(ABOUT.to_owned(), about));
        let bytes = writer.into_inner().map_err(unwritable)?.into();
        let path = path_of(&self.of, &self.begin, first_ms);
        Ok(Some(NewEvents { path, end, records: self.records, bytes }))
    }

    fn write_waiting(&mut self) -> Result<(), ParquetError> {
        if self.waiting.rows == 0 {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.waiting).batch()?;
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => new_writer_of(
                SCHEMA.clone(),
                &[&["key"], &["value"], &["key_bytes"], &["value_bytes"]],
            )?,
        };
        writer.write(&batch)?;
        if writer.in_progress_size() >= ROW_GROUP_BYTES {
            writer.flush()?;
        }
        self.writer = Some(writer);
        Ok(())
    }
}

/// Records that are not written yet, column by column.
struct Waiting {
    rows: usize,
    bytes: usize,
    offsets: Int64Builder,
    times_ms: Int64Builder,
    times: TimestampMillisecondBuilder,
    keys: StringBuilder,
    values: StringBuilder,
    headers: ListBuilder<StructBuilder>,
    key_bytes: BinaryBuilder,
    value_bytes: BinaryBuilder,
}

impl Default for Waiting {
    fn default() -> Self {
        let texts: Vec<Box<dyn arrow_array::builder::ArrayBuilder>> =
            vec![Box::new(StringBuilder::new()), Box::new(StringBuilder::new())];
        Waiting {
            rows: 0,
            bytes: 0,
            offsets: Int64Builder::new(),
            times_ms: Int64Builder::new(),
            times: TimestampMillisecondBuilder::new().with_timezone("UTC"),
            keys: StringBuilder::new(),
            values: StringBuilder::new(),
            headers: ListBuilder::new(StructBuilder::new(header_fields(), texts))
                .with_field(header()),
            key_bytes: BinaryBuilder::new(),
            value_bytes: BinaryBuilder::new(),
        }
    }
}

impl Waiting {
    fn push(&mut self, record: &RawRecord<'_>) {
        self.rows += 1;
        self.bytes += [record.key, record.value].iter().flatten().map(|b| b.len()).sum::<usize>();
        self.offsets.append_value(record.offset as i64);
        self.times_ms.append_option(record.record_time_ms);
        self.times.append_option(record.record_time_ms);
        let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
        self.keys.append_option(key);
        self.key_bytes.append_option(record.key.filter(|_| key.is_none()));
        let value = record.value.and_then(json);
        self.values.append_option(value);
        self.value_bytes.append_option(record.value.filter(|_| value.is_none()));
        for (name, value) in record.headers {
            self.bytes += name.len() + value.len();
            let both = self.headers.values();
            for (at, text) in [name, value].into_iter().enumerate() {
                let column = both.field_builder::<StringBuilder>(at);
                column.expect("both are texts").append_value(text);
            }
            both.append(true);
        }
        self.headers.append(!record.headers.is_empty());
    }

    fn batch(mut self) -> Result<RecordBatch, ParquetError> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.offsets.finish()),
            Arc::new(self.times_ms.finish()),
            Arc::new(self.times.finish()),
            Arc::new(self.keys.finish()),
            Arc::new(self.values.finish()),
            Arc::new(self.headers.finish()),
            Arc::new(self.key_bytes.finish()),
            Arc::new(self.value_bytes.finish()),
        ];
        Ok(RecordBatch::try_new(SCHEMA.clone(), columns)?)
    }
}

fn damaged(path: &str, what: impl ToString) -> LakeError {
    LakeError::Damaged { path: path.to_owned(), what: what.to_string() }
}

fn open(
    bytes: Bytes,
    path: &str,
) -> Result<(About, ParquetRecordBatchReaderBuilder<Bytes>), LakeError> {
    let options = ArrowReaderOptions::new().with_schema(SCHEMA.clone());
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options)
        .map_err(|error| damaged(path, error))?;
    let pairs = builder.metadata().file_metadata().key_value_metadata();
    let about = pairs.into_iter().flatten().find(|pair| pair.key == ABOUT);
    let about = about.and_then(|pair| pair.value.as_deref());
    let about = about.ok_or_else(|| damaged(path, "it does not say what it covers"))?;
    let about = serde_json::from_str(about).map_err(|error| damaged(path, error))?;
    Ok((about, builder))
}

/// What a file says of itself.
pub(super) fn about(bytes: Bytes, path: &str) -> Result<About, LakeError> {
    open(bytes, path).map(|(about, _)| about)
}

/// Begins to read a file.
pub(super) fn read(bytes: Bytes, path: &str) -> Result<(About, EventsReader), LakeError> {
    let (about, builder) = open(bytes, path)?;
    let reader = builder.with_batch_size(1024).build().map_err(|error| damaged(path, error))?;
    Ok((about, EventsReader { path: path.to_owned(), reader }))
}

/// Reads a file, some records at a time.
pub struct EventsReader {
    path: String,
    reader: ParquetRecordBatchReader,
}

impl EventsReader {
    /// The next records; `None` at the end.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn next_rows(&mut self) -> Result<Option<EventsRows>, LakeError> {
        let batch = self.reader.next().transpose().map_err(|error| damaged(&self.path, error))?;
        Ok(batch.map(EventsRows))
    }
}

/// Records that were read together.
pub struct EventsRows(RecordBatch);

impl EventsRows {
    /// How many they are.
    pub fn len(&self) -> usize {
        self.0.num_rows()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The offset of one.
    pub fn offset(&self, row: usize) -> u64 {
        self.0.column(0).as_primitive::<Int64Type>().value(row) as u64
    }

    /// The log's timestamp of one.
    pub fn record_time_ms(&self, row: usize) -> Option<i64> {
        let times = self.0.column(1).as_primitive::<Int64Type>();
        times.is_valid(row).then(|| times.value(row))
    }

    /// The key of one.
    pub fn key(&self, row: usize) -> Option<&[u8]> {
        self.bytes(row, 3, 6)
    }

    /// The payload of one.
    pub fn value(&self, row: usize) -> Option<&[u8]> {
        self.bytes(row, 4, 7)
    }

    fn bytes(&self, row: usize, text: usize, bytes: usize) -> Option<&[u8]> {
        // The reader has checked that the file has these columns and types.
        let (text, bytes) = (self.0.column(text).as_string::<i32>(), self.0.column(bytes));
        let bytes = bytes.as_binary::<i32>();
        let text = text.is_valid(row).then(|| text.value(row).as_bytes());
        text.or_else(|| bytes.is_valid(row).then(|| bytes.value(row)))
    }

    /// The headers of one, in their order.
    pub fn headers(&self, row: usize) -> Vec<(Cow<'_, str>, Cow<'_, str>)> {
        let lists = self.0.column(5).as_list::<i32>();
        let texts =
            |at: usize| -> &StringArray { lists.values().as_struct().column(at).as_string() };
        if lists.is_null(row) {
            return Vec::new();
        }
        let offsets = lists.value_offsets();
        let (first, end) = (offsets[row] as usize, offsets[row + 1] as usize);
        let (names, values) = (texts(0), texts(1));
        (first..end).map(|at| (names.value(at).into(), values.value(at).into())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of() -> EventsOf {
        EventsOf { topic: "t".into(), log: super::super::short_log("l"), lane: 0 }
    }

    fn writer(file_bytes: usize) -> EventsWriter {
        let begin = EventsBegin { from: 5, latest_before_ms: 0, is_after_gap: false };
        EventsWriter::new(&of(), &EventsLog { id: "l".into(), lanes: 1 }, begin, file_bytes)
    }

    #[test]
    fn every_kind_of_record_comes_back_byte_for_byte() {
        let headers = [("a".into(), "1".into()), ("a".into(), "".into())];
        let record = |offset, key, value, headers| RawRecord {
            offset,
            record_time_ms: Some(offset as i64 * 100),
            key,
            value,
            headers,
        };
        let records = [
            record(5, Some(&b"key"[..]), Some(&br#"{"a": "\u00e9"}"#[..]), &headers[..]),
            record(6, Some(&b"\xff"[..]), Some(&b"{\"a\": \"\xff\"}"[..]), &[]),
            record(8, Some(&b""[..]), Some(&b"no json"[..]), &[]),
            RawRecord { record_time_ms: None, ..record(9, None, None, &headers[..1]) },
            record(10, None, Some(&b""[..]), &[]),
            record(11, None, Some(&br#""\ud800""#[..]), &[]),
        ];
        let mut writer = writer(1 << 20);
        for record in &records {
            assert!(!writer.add(record).expect("memory works"));
        }
        let file = writer.finish(20).expect("memory works").expect("there are records");
        assert_eq!((file.records, file.end), (6, EventsEnd { to: 20, latest_ms: 1100 }));
        let (about, mut reader) = read(file.bytes, "f").expect("it is what was written");
        assert_eq!((about.from, about.to, about.log.as_str()), (5, 20, "l"));
        let rows = reader.next_rows().expect("it is whole").expect("there are rows");
        assert_eq!(rows.len(), records.len());
        for (row, record) in records.iter().enumerate() {
            let headers = rows.headers(row);
            let found = RawRecord {
                offset: rows.offset(row),
                record_time_ms: rows.record_time_ms(row),
                key: rows.key(row),
                value: rows.value(row),
                headers: &headers,
            };
            assert_eq!(found, *record);
        }
        assert!(reader.next_rows().expect("it is whole").is_none());
        // Whoever asks for a field of `value` meets JSON and nothing else.
        let values = rows.0.column(4).as_string::<i32>();
        let texts: Vec<bool> = (0..rows.len()).map(|row| values.is_valid(row)).collect();
        assert_eq!(texts, [true, false, false, false, false, false]);
    }

    #[test]
    fn a_file_without_records_is_none_and_a_full_one_says_so() {
        assert!(writer(1).finish(9).expect("memory works").is_none());
        let mut writer = writer(100_000);
        let mut fills = 0;
        for offset in 5..50_000_u64 {
            let value = format!("{{\"n\": {}}}", offset.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let value = Some(value.as_bytes());
            let record = RawRecord { offset, record_time_ms: None, key: None, value, headers: &[] };
            if writer.add(&record).expect("memory works") {
                fills = offset;
                break;
            }
        }
        assert!((4096..20_000).contains(&fills), "{fills}");
        let file = writer.finish(fills + 1).expect("memory works").expect("there are records");
        assert!(file.bytes.len() < 400_000, "{}", file.bytes.len());
    }

    #[test]
    fn what_is_no_such_file_is_an_error() {
        let mut writer = writer(1 << 20);
        let value = Some(&b"{}"[..]);
        let record = RawRecord { offset: 5, record_time_ms: None, key: None, value, headers: &[] };
        writer.add(&record).expect("memory works");
        let bytes = writer.finish(6).expect("memory works").expect("there are records").bytes;
        for end in [0, 4, bytes.len() / 2, bytes.len() - 1] {
            assert!(about(bytes.slice(..end), "f").is_err(), "{end}");
        }
        let error = read(Bytes::from_static(b"PAR1 nothing"), "x.parquet").err();
        let error = error.expect("it is no Parquet");
        assert!(error.to_string().contains("x.parquet"), "{error}");
    }
}
