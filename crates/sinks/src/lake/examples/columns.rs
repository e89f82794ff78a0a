//! Examples as Parquet: the columns, files of bounded size, and reading labels back.
//!
//! | column | type | |
//! |---|---|---|
//! | `request_id`, `video_id` | string | the video under which it counts |
//! | `impression_time` | timestamp, ms, UTC | the first sighting of the epoch |
//! | *attributes* | string, int64, double, boolean | as declared under `[impressions] attributes`; null where absent |
//! | `played` | boolean | the label |
//! | `seconds_to_play` | double | null where it was not played |
//! | `weight` | double | how many examples it stands for: 1, or 1 / `negatives` |
//! | `epoch_start_ms` | int64 | start of the (longest) epoch of the impression |
//! | `complete` | boolean | false where the log had lost events that could belong to it |
//! | `as_of` | timestamp, ms, UTC | when the label was known; the last row of a key counts |

use super::super::LakeError;
use super::super::parquet::{new_writer_of, unwritable};
use super::Label;
use arrow_array::builder::{
    BooleanBuilder, Float64Builder, Int64Builder, StringBuilder, TimestampMillisecondBuilder,
};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampMillisecondType};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use std::sync::Arc;

/// Rows that are turned into columns at once.
const BATCH_ROWS: usize = 8192;

/// A row group is closed when it has so many bytes, about.
const ROW_GROUP_BYTES: usize = 8 << 20;

const BEFORE: [&str; 3] = ["request_id", "video_id", "impression_time"];
const AFTER: [&str; 6] =
    ["played", "seconds_to_play", "weight", "epoch_start_ms", "complete", "as_of"];
/// Readers make columns of the folders' names.
const FOLDERS: [&str; 3] = ["generation", "day", "lane"];

/// The type of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributeKind {
    /// A string.
    Text,
    /// A whole number of 64 bits.
    Int,
    /// A number of 64 bits with fraction.
    Double,
    /// True or false.
    Bool,
}

/// The value of an attribute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AttributeValue<'v> {
    /// It is absent.
    Null,
    /// A string.
    Text(&'v str),
    /// A whole number.
    Int(i64),
    /// A number with fraction.
    Double(f64),
    /// True or false.
    Bool(bool),
}

/// One row: an impression and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Example<'e> {
    /// The request.
    pub request_id: &'e str,
    /// The video under which it counts.
    pub video: &'e str,
    /// The first sighting in the epoch, milliseconds since 1970 UTC.
    pub time_ms: i64,
    /// The values of the attributes, in the order of their declaration.
    pub attributes: Vec<AttributeValue<'e>>,
    /// Seconds from the impression to the first play that matches; `None`: not played.
    pub seconds_to_play: Option<f64>,
    /// How many examples it stands for.
    pub weight: f64,
    /// Start of its epoch, milliseconds.
    pub epoch_start_ms: i64,
    /// Whether everything that could belong to it was read.
    pub complete: bool,
    /// When the label was known, milliseconds since 1970 UTC.
    pub as_of_ms: i64,
}

/// The columns of a generation.
pub(super) struct Columns {
    schema: SchemaRef,
    attributes: Vec<AttributeKind>,
}

impl Columns {
    pub(super) fn new(attributes: &[(String, AttributeKind)]) -> Self {
        let utc = || DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
        let must = |name: &str, ty| Field::new(name, ty, false);
        let mut fields = vec![
            must(BEFORE[0], DataType::Utf8),
            must(BEFORE[1], DataType::Utf8),
            must(BEFORE[2], utc()),
        ];
        fields.extend(attributes.iter().map(|(name, kind)| {
            let ty = match kind {
                AttributeKind::Text => DataType::Utf8,
                AttributeKind::Int => DataType::Int64,
                AttributeKind::Double => DataType::Float64,
                AttributeKind::Bool => DataType::Boolean,
            };
            Field::new(column_name(name), ty, true)
        }));
        fields.extend([
            must(AFTER[0], DataType::Boolean),
            Field::new(AFTER[1], DataType::Float64, true),
            must(AFTER[2], DataType::Float64),
            must(AFTER[3], DataType::Int64),
            must(AFTER[4], DataType::Boolean),
            must(AFTER[5], utc()),
        ]);
        let attributes = attributes.iter().map(|(_, kind)| *kind).collect();
        Columns { schema: Arc::new(Schema::new(fields)), attributes }
    }
}

/// An attribute that is named like another column has a longer name here.
fn column_name(attribute: &str) -> String {
    let is_taken = BEFORE.iter().chain(&AFTER).chain(&FOLDERS).any(|name| *name == attribute);
    if is_taken { format!("attribute_{attribute}") } else { attribute.to_owned() }
}

/// A whole file.
pub(super) struct ExamplesFile {
    pub(super) bytes: Bytes,
    pub(super) rows: u64,
}

/// Writes rows to files of a certain size. One file is in memory at a time.
pub(super) struct ExamplesWriter<'c> {
    columns: &'c Columns,
    file_bytes: usize,
    writer: Option<ArrowWriter<Vec<u8>>>,
    rows: u64,
    waiting: Waiting,
}

impl<'c> ExamplesWriter<'c> {
    pub(super) fn new(columns: &'c Columns, file_bytes: usize) -> Self {
        let waiting = Waiting::new(&columns.attributes);
        ExamplesWriter { columns, file_bytes, writer: None, rows: 0, waiting }
    }

    /// Takes a row; returns a file that has become full.
    pub(super) fn add(&mut self, row: &Example<'_>) -> Result<Option<ExamplesFile>, LakeError> {
        self.waiting.push(row);
        if self.waiting.rows < BATCH_ROWS {
            return Ok(None);
        }
        self.write_waiting().map_err(unwritable)?;
        let is_full = self.writer.as_ref().is_some_and(|w| w.bytes_written() >= self.file_bytes);
        if is_full { self.finish() } else { Ok(None) }
    }

    /// The last file, if there are rows that are in none yet.
    pub(super) fn finish(&mut self) -> Result<Option<ExamplesFile>, LakeError> {
        self.write_waiting().map_err(unwritable)?;
        let Some(writer) = self.writer.take() else { return Ok(None) };
        let bytes = writer.into_inner().map_err(unwritable)?.into();
        Ok(Some(ExamplesFile { bytes, rows: std::mem::take(&mut self.rows) }))
    }

    fn write_waiting(&mut self) -> Result<(), ParquetError> {
        let rows = self.waiting.rows;
        if rows == 0 {
            return Ok(());
        }
        let batch = self.waiting.take(self.columns.schema.clone())?;
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => new_writer_of(self.columns.schema.clone(), &[&[BEFORE[0]]])?,
        };
        writer.write(&batch)?;
        let in_progress = writer.in_progress_size();
        let fills_file = writer.bytes_written() + in_progress >= self.file_bytes;
        if fills_file || in_progress >= ROW_GROUP_BYTES {
            writer.flush()?;
        }
        self.rows += rows as u64;
        self.writer = Some(writer);
        Ok(())
    }
}

/// Rows that are not written yet, column by column.
struct Waiting {
    rows: usize,
    request_ids: StringBuilder,
    videos: StringBuilder,
    times: TimestampMillisecondBuilder,
    attributes: Vec<AttributeBuilder>,
    played: BooleanBuilder,
    seconds: Float64Builder,
    weights: Float64Builder,
    epochs: Int64Builder,
    complete: BooleanBuilder,
    as_of: TimestampMillisecondBuilder,
}

impl Waiting {
    fn new(attributes: &[AttributeKind]) -> Self {
        let times = || TimestampMillisecondBuilder::new().with_timezone("UTC");
        Waiting {
            rows: 0,
            request_ids: StringBuilder::new(),
            videos: StringBuilder::new(),
            times: times(),
            attributes: attributes.iter().map(AttributeBuilder::new).collect(),
            played: BooleanBuilder::new(),
            seconds: Float64Builder::new(),
            weights: Float64Builder::new(),
            epochs: Int64Builder::new(),
            complete: BooleanBuilder::new(),
            as_of: times(),
        }
    }

    fn push(&mut self, row: &Example<'_>) {
        debug_assert_eq!(row.attributes.len(), self.attributes.len());
        self.rows += 1;
        self.request_ids.append_value(row.request_id);
        self.videos.append_value(row.video);
        self.times.append_value(row.time_ms);
        for (builder, value) in self.attributes.iter_mut().zip(&row.attributes) {
            builder.push(*value);
        }
        self.played.append_value(row.seconds_to_play.is_some());
        self.seconds.append_option(row.seconds_to_play);
        self.weights.append_value(row.weight);
        self.epochs.append_value(row.epoch_start_ms);
        self.complete.append_value(row.complete);
        self.as_of.append_value(row.as_of_ms);
    }

    fn take(&mut self, schema: SchemaRef) -> Result<RecordBatch, ParquetError> {
        self.rows = 0;
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(self.request_ids.finish()),
            Arc::new(self.videos.finish()),
            Arc::new(self.times.finish()),
        ];
        columns.extend(self.attributes.iter_mut().map(AttributeBuilder::finish));
        let after: [ArrayRef; 6] = [
            Arc::new(self.played.finish()),
            Arc::new(self.seconds.finish()),
            Arc::new(self.weights.finish()),
            Arc::new(self.epochs.finish()),
            Arc::new(self.complete.finish()),
            Arc::new(self.as_of.finish()),
        ];
        columns.extend(after);
        Ok(RecordBatch::try_new(schema, columns)?)
    }
}

enum AttributeBuilder {
    Text(StringBuilder),
    Int(Int64Builder),
    Double(Float64Builder),
    Bool(BooleanBuilder),
}

impl AttributeBuilder {
    fn new(kind: &AttributeKind) -> Self {
        match kind {
            AttributeKind::Text => AttributeBuilder::Text(StringBuilder::new()),
            AttributeKind::Int => AttributeBuilder::Int(Int64Builder::new()),
            AttributeKind::Double => AttributeBuilder::Double(Float64Builder::new()),
            AttributeKind::Bool => AttributeBuilder::Bool(BooleanBuilder::new()),
        }
    }

    /// The decoder gives each attribute the type that it was declared with.
    fn push(&mut self, value: AttributeValue<'_>) {
        match (self, value) {
            (AttributeBuilder::Text(to), AttributeValue::Text(text)) => to.append_value(text),
            (AttributeBuilder::Int(to), AttributeValue::Int(number)) => to.append_value(number),
            (AttributeBuilder::Double(to), AttributeValue::Double(x)) => to.append_value(x),
            (AttributeBuilder::Bool(to), AttributeValue::Bool(truth)) => to.append_value(truth),
            (AttributeBuilder::Text(to), _) => to.append_null(),
            (AttributeBuilder::Int(to), _) => to.append_null(),
            (AttributeBuilder::Double(to), _) => to.append_null(),
            (AttributeBuilder::Bool(to), _) => to.append_null(),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            AttributeBuilder::Text(from) => Arc::new(from.finish()),
            AttributeBuilder::Int(from) => Arc::new(from.finish()),
            AttributeBuilder::Double(from) => Arc::new(from.finish()),
            AttributeBuilder::Bool(from) => Arc::new(from.finish()),
        }
    }
}

/// Calls `each` with the request, the video, the epoch and the label of every row.
pub(super) fn read_labels(
    bytes: Bytes,
    path: &str,
    each: &mut dyn FnMut(&str, &str, i64, Label),
) -> Result<(), LakeError> {
    let damaged = |what: String| LakeError::Damaged { path: path.to_owned(), what };
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .map_err(|error| damaged(error.to_string()))?;
    // The attributes that were declared when it was written do not matter.
    let wanted = [BEFORE[0], BEFORE[1], AFTER[1], AFTER[3], AFTER[5]];
    let mask = ProjectionMask::columns(builder.parquet_schema(), wanted);
    let reader = builder.with_projection(mask).with_batch_size(1024).build();
    for batch in reader.map_err(|error| damaged(error.to_string()))? {
        let batch = batch.map_err(|error| damaged(error.to_string()))?;
        let column = |name: &str| {
            let column = batch.column_by_name(name);
            column.ok_or_else(|| damaged(format!("it has no column {name}")))
        };
        let text = |name: &str| {
            let column = column(name)?.as_string_opt::<i32>();
            column.ok_or_else(|| damaged(format!("its column {name} is no string")))
        };
        let odd = |name: &str| damaged(format!("its column {name} has another type"));
        let (requests, videos) = (text(BEFORE[0])?, text(BEFORE[1])?);
        let seconds = column(AFTER[1])?.as_primitive_opt::<Float64Type>();
        let seconds = seconds.ok_or_else(|| odd(AFTER[1]))?;
        let epochs = column(AFTER[3])?.as_primitive_opt::<Int64Type>();
        let epochs = epochs.ok_or_else(|| odd(AFTER[3]))?;
        let as_of = column(AFTER[5])?.as_primitive_opt::<TimestampMillisecondType>();
        let as_of = as_of.ok_or_else(|| odd(AFTER[5]))?;
        for at in 0..batch.num_rows() {
            let seconds_to_play = seconds.is_valid(at).then(|| seconds.value(at));
            let label = Label { seconds_to_play, as_of_ms: as_of.value(at) };
            each(requests.value(at), videos.value(at), epochs.value(at), label);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(n: usize, seconds_to_play: Option<f64>) -> (String, Option<f64>) {
        (format!("request-{n:05}"), seconds_to_play)
    }

    fn files(rows: &[(String, Option<f64>)], file_bytes: usize) -> Vec<ExamplesFile> {
        let attributes = [
            ("device".to_owned(), AttributeKind::Text),
            ("row".to_owned(), AttributeKind::Int),
            ("price".to_owned(), AttributeKind::Double),
            ("played".to_owned(), AttributeKind::Bool),
        ];
        let columns = Columns::new(&attributes);
        let mut writer = ExamplesWriter::new(&columns, file_bytes);
        let mut files = Vec::new();
        for (at, (request_id, seconds_to_play)) in (0..).zip(rows) {
            let row = Example {
                request_id,
                video: "v",
                time_ms: at,
                attributes: vec![
                    AttributeValue::Text("tv"),
                    AttributeValue::Null,
                    AttributeValue::Double(0.5),
                    AttributeValue::Bool(true),
                ],
                seconds_to_play: *seconds_to_play,
                weight: 1.0,
                epoch_start_ms: 7,
                complete: true,
                as_of_ms: at,
            };
            files.extend(writer.add(&row).expect("memory takes all"));
        }
        files.extend(writer.finish().expect("memory takes all"));
        files
    }

    #[test]
    fn labels_read_as_they_were_written_and_files_are_bounded() {
        let rows: Vec<_> =
            (0..20_000).map(|n| example(n, (n % 3 == 0).then_some(n as f64 / 2.0))).collect();
        let files = files(&rows, 100_000);
        assert!(files.len() > 1, "{} files", files.len());
        let mut read = Vec::new();
        for file in &files {
            let before = read.len();
            let each = &mut |request: &str, video: &str, epoch_ms: i64, label: Label| {
                assert_eq!((video, epoch_ms, label.as_of_ms), ("v", 7, read.len() as i64));
                read.push((request.to_owned(), label.seconds_to_play));
            };
            read_labels(file.bytes.clone(), "f", each).expect("it is what was written");
            assert_eq!((read.len() - before) as u64, file.rows);
        }
        assert_eq!(read, rows);
    }

    #[test]
    fn an_attribute_that_is_named_like_a_column_has_another_name() {
        let names = ["device", "played", "day", "as_of"].map(column_name);
        assert_eq!(names, ["device", "attribute_played", "attribute_day", "attribute_as_of"]);
    }

    #[test]
    fn what_is_no_such_file_is_an_error() {
        let read = |bytes: Bytes| read_labels(bytes, "x.parquet", &mut |_, _, _, _| ());
        let error = read(Bytes::from_static(b"PAR1 nothing")).expect_err("it is no Parquet");
        assert!(error.to_string().contains("x.parquet"), "{error}");
        let file = files(&[example(1, None)], 1 << 20).remove(0).bytes;
        assert!(read(file.slice(..file.len() - 1)).is_err());
    }
}
