//! Cells as Parquet: the columns, files of bounded size, and reading them back.
//!
//! | column | type | |
//! |---|---|---|
//! | `video_id` | string | |
//! | `epoch_start_ms` | int64 | milliseconds since 1970 UTC |
//! | `slice` | string | JSON with sorted keys, empty for everybody |
//! | `impressions`, `plays` | int64 | of this lane |
//! | `epoch_ms` | int64 | length of the epoch |
//! | `complete` | boolean | |
//! | `epoch_start` | timestamp, ms, UTC | the same as `epoch_start_ms` |
//! | `impression_requests`, `play_requests` | list of strings | the sets; null where they are not kept whole |
//!
//! Counts are signed, unlike those of `marquee backfill --out`: engines on the JVM have no unsigned
//! numbers, and read them as decimals.

use super::{LakeError, Row};
use arrow_array::builder::{LargeListBuilder, LargeStringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{
    Array, ArrayRef, BooleanArray, Int64Array, LargeListArray, RecordBatch, StringArray,
    TimestampMillisecondArray,
};
use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use marquee_model::{CellCounts, CellKey};
use marquee_pipeline::chunk::Id;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

/// Rows, and request ids, that are turned into columns at once.
const BATCH_ROWS: usize = 8192;
const BATCH_IDS: usize = 65_536;

/// A row group is closed when it has so many bytes, about: a reader needs one in memory.
const ROW_GROUP_BYTES: usize = 8 << 20;

/// Columns of request ids.
const REQUESTS: [&str; 2] = ["impression_requests", "play_requests"];

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let number = |name: &str| Field::new(name, DataType::Int64, false);
    let utc = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
    // Large, so that one cell may have more than 2 GiB of ids; Parquet makes no difference.
    let ids = || DataType::LargeList(Arc::new(element()));
    Arc::new(Schema::new(vec![
        text("video_id"),
        number("epoch_start_ms"),
        text("slice"),
        number("impressions"),
        number("plays"),
        number("epoch_ms"),
        Field::new("complete", DataType::Boolean, false),
        Field::new("epoch_start", utc, false),
        Field::new(REQUESTS[0], ids(), true),
        Field::new(REQUESTS[1], ids(), true),
    ]))
});

/// The name that the specification of Parquet gives to the elements of lists.
fn element() -> Field {
    Field::new("element", DataType::LargeUtf8, false)
}

/// A whole file.
pub(super) struct CellsFile {
    pub(super) bytes: Bytes,
    pub(super) rows: u64,
}

/// Writes rows, which come in the order of cells, to files of a certain size. One file is in memory
/// at a time.
pub(super) struct CellsWriter {
    file_bytes: usize,
    writer: Option<ArrowWriter<Vec<u8>>>,
    rows: u64,
    waiting: Vec<Row>,
    waiting_ids: usize,
}

impl CellsWriter {
    pub(super) fn new(file_bytes: usize) -> Self {
        CellsWriter { file_bytes, writer: None, rows: 0, waiting: Vec::new(), waiting_ids: 0 }
    }

    /// Takes a row; returns a file that has become full.
    pub(super) fn add(&mut self, row: Row) -> Result<Option<CellsFile>, LakeError> {
        self.waiting_ids += row.ids();
        self.waiting.push(row);
        if self.waiting.len() < BATCH_ROWS && self.waiting_ids < BATCH_IDS {
            return Ok(None);
        }
        self.write_waiting().map_err(unwritable)?;
        let is_full = self.writer.as_ref().is_some_and(|w| w.bytes_written() >= self.file_bytes);
        if is_full { self.end() } else { Ok(None) }
    }

    /// The last file, if there are rows that are in none yet.
    pub(super) fn finish(mut self) -> Result<Option<CellsFile>, LakeError> {
        self.end()
    }

    fn end(&mut self) -> Result<Option<CellsFile>, LakeError> {
        self.write_waiting().map_err(unwritable)?;
        let Some(writer) = self.writer.take() else { return Ok(None) };
        let bytes = writer.into_inner().map_err(unwritable)?.into();
        Ok(Some(CellsFile { bytes, rows: std::mem::take(&mut self.rows) }))
    }

    fn write_waiting(&mut self) -> Result<(), ParquetError> {
        let rows = std::mem::take(&mut self.waiting);
        self.waiting_ids = 0;
        if rows.is_empty() {
            return Ok(());
        }
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => new_writer()?,
        };
        writer.write(&batch(&rows)?)?;
        let in_progress = writer.in_progress_size();
        let fills_file = writer.bytes_written() + in_progress >= self.file_bytes;
        if fills_file || in_progress >= ROW_GROUP_BYTES {
            writer.flush()?;
        }
        self.rows += rows.len() as u64;
        self.writer = Some(writer);
        Ok(())
    }
}

/// Memory takes all that is written, so this is a bug of one of the two.
pub(super) fn unwritable(error: ParquetError) -> LakeError {
    LakeError::Damaged { path: "a file in memory".into(), what: error.to_string() }
}

fn new_writer() -> Result<ArrowWriter<Vec<u8>>, ParquetError> {
    let lists = REQUESTS.map(|name| [name, "list", "element"]);
    new_writer_of(SCHEMA.clone(), &lists.each_ref().map(<[&str; 3]>::as_slice))
}

/// A file with these columns. `random` are paths of columns whose values are random: neither
/// dictionaries nor smallest and largest values help there.
pub(super) fn new_writer_of(
    schema: SchemaRef,
    random: &[&[&str]],
) -> Result<ArrowWriter<Vec<u8>>, ParquetError> {
    let mut properties = WriterProperties::builder()
        .set_created_by("marquee".into())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?));
    for path in random {
        let column = ColumnPath::new(path.iter().map(|part| (*part).to_owned()).collect());
        properties = properties
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_statistics_enabled(column, EnabledStatistics::None);
    }
    // Without Arrow's own schema in it every reader sees plain strings and lists.
    let options = ArrowWriterOptions::new()
        .with_properties(properties.build())
        .with_skip_arrow_metadata(true);
    ArrowWriter::try_new_with_options(Vec::new(), schema, options)
}

fn batch(rows: &[Row]) -> Result<RecordBatch, ParquetError> {
    let texts = |text: fn(&Row) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(text)))
    };
    let numbers = |number: fn(&Row) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(rows.iter().map(number)))
    };
    let starts = rows.iter().map(|row| row.key.epoch_start_ms);
    let starts = TimestampMillisecondArray::from_iter_values(starts).with_timezone("UTC");
    let complete: BooleanArray = rows.iter().map(|row| Some(row.complete)).collect();
    let columns = vec![
        texts(|row| &row.key.video),
        numbers(|row| row.key.epoch_start_ms),
        texts(|row| &row.key.slice),
        numbers(|row| row.counts.impressions as i64),
        numbers(|row| row.counts.plays as i64),
        numbers(|row| row.key.epoch_ms),
        Arc::new(complete),
        Arc::new(starts),
        requests(rows, 0),
        requests(rows, 1),
    ];
    Ok(RecordBatch::try_new(SCHEMA.clone(), columns)?)
}

fn requests(rows: &[Row], side: usize) -> ArrayRef {
    let mut lists = LargeListBuilder::new(LargeStringBuilder::new()).with_field(element());
    for row in rows {
        let ids = row.requests[side].as_ref();
        for id in ids.into_iter().flatten() {
            // Straight into the column, without a text in between.
            let written = std::fmt::Write::write_fmt(lists.values(), format_args!("{id}"));
            written.expect("memory takes all");
            lists.values().append_value("");
        }
        lists.append(ids.is_some());
    }
    Arc::new(lists.finish())
}

/// Calls `each` with every row of a file, in its order.
pub(super) fn read(bytes: Bytes, path: &str, each: &mut dyn FnMut(Row)) -> Result<(), LakeError> {
    read_wanted(bytes, path, &|_| true, each)
}

/// Calls `each` with every row of a file that is wanted: of the others no set is made.
pub(super) fn read_wanted(
    bytes: Bytes,
    path: &str,
    wants: &dyn Fn(&CellKey) -> bool,
    each: &mut dyn FnMut(Row),
) -> Result<(), LakeError> {
    batches(bytes, path, &[0, 1, 2, 3, 4, 5, 6, 8, 9], &mut |batch| {
        let cells = Cells::of(batch)?;
        let complete = batch.column(6).as_boolean();
        let lists = [7, 8].map(|column| batch.column(column).as_list::<i64>());
        for at in 0..batch.num_rows() {
            let key = cells.key(at);
            if !wants(&key) {
                continue;
            }
            let requests = [ids(lists[0], at)?, ids(lists[1], at)?];
            each(Row { key, counts: cells.counts(at)?, requests, complete: complete.value(at) });
        }
        Ok(())
    })
}

/// Calls `each` with every cell of a file and its counts: the sets, which are most of it, are left
/// out.
pub(super) fn read_counts(
    bytes: Bytes,
    path: &str,
    each: &mut dyn FnMut(CellKey, CellCounts),
) -> Result<(), LakeError> {
    batches(bytes, path, &[0, 1, 2, 3, 4, 5, 6], &mut |batch| {
        let cells = Cells::of(batch)?;
        for at in 0..batch.num_rows() {
            each(cells.key(at), cells.counts(at)?);
        }
        Ok(())
    })
}

/// Calls `each` with some columns of a file, a batch at a time. What it finds wrong is an error of
/// the file.
fn batches(
    bytes: Bytes,
    path: &str,
    columns: &[usize],
    each: &mut dyn FnMut(&RecordBatch) -> Result<(), String>,
) -> Result<(), LakeError> {
    let damaged = |what: String| LakeError::Damaged { path: path.to_owned(), what };
    let parquet = |error: ParquetError| damaged(error.to_string());
    let schema = schema_of(&bytes).map_err(damaged)?;
    let options = ArrowReaderOptions::new().with_schema(schema);
    let builder =
        ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options).map_err(parquet)?;
    let mask = ProjectionMask::roots(builder.parquet_schema(), columns.iter().copied());
    let reader = builder.with_projection(mask).with_batch_size(1024).build().map_err(parquet)?;
    for batch in reader {
        each(&batch.map_err(|e| damaged(e.to_string()))?).map_err(damaged)?;
    }
    Ok(())
}

/// The types of [`SCHEMA`] for a file that somebody else may have written anew: columns and ids may
/// be declared as null there, as long as none is.
fn schema_of(bytes: &Bytes) -> Result<SchemaRef, String> {
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let metadata = ArrowReaderMetadata::load(bytes, options).map_err(|e| e.to_string())?;
    let found = metadata.schema().fields();
    let names = |fields: &Fields| fields.iter().map(|f| f.name().clone()).collect::<Vec<_>>();
    if names(found) != names(SCHEMA.fields()) {
        return Err(format!("its columns are {}", names(found).join(", ")));
    }
    let field = |(found, wanted): (&FieldRef, &FieldRef)| {
        let data_type = match (found.data_type(), wanted.data_type()) {
            (DataType::List(of) | DataType::LargeList(of), DataType::LargeList(_)) => {
                let of = of.as_ref().clone().with_data_type(DataType::LargeUtf8);
                DataType::LargeList(Arc::new(of))
            }
            // Nobody reads it, and others write it in other units.
            (found @ DataType::Timestamp(..), DataType::Timestamp(..)) => found.clone(),
            (_, wanted) => wanted.clone(),
        };
        found.as_ref().clone().with_data_type(data_type)
    };
    let fields: Vec<Field> = found.iter().zip(SCHEMA.fields()).map(field).collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// The columns of a batch that say which cells it has, and their counts.
struct Cells<'b> {
    videos: &'b StringArray,
    slices: &'b StringArray,
    starts: &'b Int64Array,
    lengths: &'b Int64Array,
    counts: [&'b Int64Array; 2],
}

impl<'b> Cells<'b> {
    fn of(batch: &'b RecordBatch) -> Result<Self, String> {
        if let Some(column) = (0..7).find(|column| batch.column(*column).null_count() > 0) {
            return Err(format!("a value of {} is null", SCHEMA.field(column).name()));
        }
        // The reader has checked that the file has these columns and types.
        let numbers = |column: usize| batch.column(column).as_primitive::<Int64Type>();
        Ok(Cells {
            videos: batch.column(0).as_string::<i32>(),
            slices: batch.column(2).as_string::<i32>(),
            starts: numbers(1),
            lengths: numbers(5),
            counts: [numbers(3), numbers(4)],
        })
    }

    fn key(&self, at: usize) -> CellKey {
        CellKey {
            video: self.videos.value(at).to_owned(),
            epoch_start_ms: self.starts.value(at),
            slice: self.slices.value(at).to_owned(),
            epoch_ms: self.lengths.value(at),
        }
    }

    fn counts(&self, at: usize) -> Result<CellCounts, String> {
        let count = |side: usize| {
            let count = self.counts[side].value(at);
            u64::try_from(count).map_err(|_| format!("a count is {count}"))
        };
        Ok(CellCounts { impressions: count(0)?, plays: count(1)? })
    }
}

/// A set; `None` where it is not kept.
fn ids(lists: &LargeListArray, at: usize) -> Result<Option<BTreeSet<Id>>, String> {
    if lists.is_null(at) {
        return Ok(None);
    }
    let ids = lists.value(at);
    if ids.null_count() > 0 {
        return Err("a request id is null".to_owned());
    }
    Ok(Some(ids.as_string::<i64>().iter().flatten().map(Id::of).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows_of(files: &[CellsFile]) -> Vec<Row> {
        let mut rows = Vec::new();
        for file in files {
            let before = rows.len();
            read(file.bytes.clone(), "f", &mut |row| rows.push(row))
                .expect("it is what was written");
            assert_eq!((rows.len() - before) as u64, file.rows);
        }
        rows
    }

    fn written(rows: &[Row], file_bytes: usize) -> Vec<CellsFile> {
        let mut writer = CellsWriter::new(file_bytes);
        let mut files = Vec::new();
        for row in rows {
            files.extend(writer.add(row.clone()).expect("it is written"));
        }
        files.extend(writer.finish().expect("it is written"));
        files
    }

    fn row(video: &str, ids: usize) -> Row {
        let id = |n: usize| {
            Id::Uuid((n as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
        };
        let key = CellKey {
            video: video.to_owned(),
            epoch_start_ms: 1_479_688_200_000,
            slice: r#"{"country":"US"}"#.to_owned(),
            epoch_ms: 1_800_000,
        };
        let set: BTreeSet<Id> = (0..ids).map(id).collect();
        let counts = CellCounts { impressions: ids as u64, plays: 0 };
        Row { key, counts, requests: [Some(set), Some(BTreeSet::new())], complete: true }
    }

    fn any_row() -> impl Strategy<Value = Row> {
        let ids = || proptest::option::of(proptest::collection::btree_set(".{1,12}", 0..5));
        let sets =
            |ids: Option<BTreeSet<String>>| ids.map(|i| i.iter().map(|t| Id::of(t)).collect());
        (".{0,8}", 0..1_i64 << 50, ids(), ids(), any::<bool>()).prop_map(
            move |(video, epoch_start_ms, shown, played, complete)| {
                let key = CellKey { video, epoch_start_ms, slice: String::new(), epoch_ms: 1000 };
                let counts = CellCounts { impressions: 7, plays: 1 << 40 };
                Row { key, counts, requests: [sets(shown), sets(played)], complete }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn rows_read_as_they_were_written(rows in proptest::collection::vec(any_row(), 0..20)) {
            let files = written(&rows, 1 << 20);
            prop_assert_eq!(files.len(), usize::from(!rows.is_empty()));
            prop_assert_eq!(rows_of(&files), rows);
        }
    }

    #[test]
    fn a_file_that_is_full_is_followed_by_another() {
        let rows: Vec<Row> = (0..12).map(|n| row(&format!("video-{n:02}"), 70_000)).collect();
        let files = written(&rows, 2 << 20);
        assert!(files.len() > 2, "{} files", files.len());
        for file in &files {
            assert!(file.bytes.len() < 5 << 20, "{} bytes", file.bytes.len());
        }
        assert_eq!(rows_of(&files), rows);
        let again = written(&rows, 2 << 20);
        let bytes = |files: &[CellsFile]| files.iter().map(|f| f.bytes.clone()).collect::<Vec<_>>();
        assert_eq!(bytes(&files), bytes(&again), "the same rows are the same bytes");
    }

    #[test]
    fn what_is_no_such_file_is_an_error() {
        let read = |bytes: Bytes| read(bytes, "x.parquet", &mut |_| ());
        let error = read(Bytes::from_static(b"PAR1 nothing")).expect_err("it is no Parquet");
        assert!(error.to_string().contains("x.parquet"), "{error}");
        let file = written(&[row("v", 3)], 1 << 20).remove(0).bytes;
        for end in [4, file.len() / 2, file.len() - 1] {
            assert!(read(file.slice(..end)).is_err(), "{end}");
        }
    }
}
