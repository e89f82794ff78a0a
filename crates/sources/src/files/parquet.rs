//! Parquet: row groups that threads take one after the other, each read column by column.
//!
//! Only the columns that a mapping names are read. Where the whole record is wanted, for a mapping
//! that looks at all of it or for a bad row's dead letter, a row becomes a line of JSON, so that one
//! mapping serves all forms of input.
//!
//! Texts that a row group stores as places in a dictionary are read as such, so that what follows
//! from a text is found once a word and not in every row.
//!
//! Timestamps become whole milliseconds, as a mapping with `time_unit = "ms"` expects. Columns of a
//! type that JSON has no plain form for (decimals, dates, bytes, maps) are left out, with a
//! warning.

use super::FileError;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch, StructArray};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Encoding;
use parquet::file::metadata::ColumnChunkMetaData;
use serde::Serialize;
use std::fmt::Display;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const ROWS: usize = 8192;

/// One file, of which threads take row groups.
pub(super) struct Table {
    source: Arc<Source>,
    next_group: usize,
    /// Number of its first row, counted from 1.
    first_row: u64,
}

struct Source {
    path: PathBuf,
    /// Its texts are read as views of their pages.
    metadata: ArrowReaderMetadata,
    /// Places of the columns that are needed; `None` for all.
    needed: Option<Vec<usize>>,
}

impl Table {
    /// Opens a file, of which the columns of these names are needed, or all.
    pub(super) fn open(path: &Path, names: Option<&[String]>) -> Result<Self, String> {
        let file = File::open(path).map_err(text)?;
        let metadata = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(text)?;
        for field in metadata.schema().fields().iter().filter(|f| !has_json(f.data_type())) {
            tracing::warn!(
                "{}: column {:?} is left out: {} has no plain form in JSON; cast it to text or a \
                 number if it is needed",
                path.display(),
                field.name(),
                field.data_type(),
            );
        }
        let needed = names.map(|names| {
            let fields = metadata.schema().fields().iter().enumerate();
            fields.filter(|(_, f)| names.contains(f.name())).map(|(place, _)| place).collect()
        });
        let metadata = with_views(metadata).map_err(text)?;
        let source = Source { path: path.to_owned(), metadata, needed };
        Ok(Table { source: Arc::new(source), next_group: 0, first_row: 1 })
    }

    /// Rows in all.
    pub(super) fn rows(&self) -> u64 {
        u64::try_from(self.source.metadata.metadata().file_metadata().num_rows()).unwrap_or(0)
    }

    /// Takes the next row group, and says how many bytes it has in the file.
    pub(super) fn take(&mut self) -> Result<Option<(RowGroup, u64)>, String> {
        let groups = self.source.metadata.metadata().row_groups();
        let Some(group) = groups.get(self.next_group) else { return Ok(None) };
        let reader = self.source.reader(self.next_group, self.source.needed.as_deref())?;
        let taken = RowGroup {
            source: self.source.clone(),
            group: self.next_group,
            next_row: self.first_row,
            next_batch: 0,
            reader,
            whole: None,
        };
        self.next_group += 1;
        self.first_row += u64::try_from(group.num_rows()).unwrap_or(0);
        Ok(Some((taken, u64::try_from(group.compressed_size()).unwrap_or(0))))
    }
}

/// Texts are read as views of their pages, so that they are not copied.
fn with_views(metadata: ArrowReaderMetadata) -> parquet::errors::Result<ArrowReaderMetadata> {
    let is_text =
        |field: &Field| *field.data_type() == DataType::Utf8 || is_words(field.data_type());
    with_types(&metadata, |_, field| is_text(field).then_some(DataType::Utf8View))
}

/// Texts that a row group holds as places in a dictionary are read as such. Only if all are: of
/// others the reader would make a dictionary, batch by batch.
fn with_words(
    metadata: &ArrowReaderMetadata,
    group: usize,
) -> parquet::errors::Result<ArrowReaderMetadata> {
    let schema = metadata.metadata().file_metadata().schema_descr_ptr();
    let chunks = metadata.metadata().row_group(group).columns();
    let has_words = |place: usize| {
        let mut leaves =
            (0..chunks.len()).filter(|leaf| schema.get_column_root_idx(*leaf) == place);
        leaves.all(|leaf| is_all_words(&chunks[leaf]))
    };
    with_types(metadata, |place, field| {
        let is_text = *field.data_type() == DataType::Utf8View;
        (is_text && has_words(place)).then(words)
    })
}

/// Whether every page of data holds places in the dictionary. Where the pages are not listed, the
/// encodings of the column tell, if the writer leaves out that the dictionary itself is plain.
/// RLE is that of the nulls.
fn is_all_words(chunk: &ColumnChunkMetaData) -> bool {
    let is_dictionary = |e| matches!(e, Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY);
    chunk.dictionary_page_offset().is_some()
        && match chunk.page_encoding_stats_mask() {
            Some(pages) => pages.encodings().all(is_dictionary),
            None => chunk.encodings().all(|e| is_dictionary(e) || e == Encoding::RLE),
        }
}

fn words() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

fn is_words(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Dictionary(place, text)
        if (&**place, &**text) == (&DataType::Int32, &DataType::Utf8))
}

/// The same file, some of whose columns, by their places, are read as other types.
fn with_types(
    metadata: &ArrowReaderMetadata,
    other: impl Fn(usize, &Field) -> Option<DataType>,
) -> parquet::errors::Result<ArrowReaderMetadata> {
    let retyped = |(place, field): (usize, &Arc<Field>)| match other(place, field) {
        Some(data_type) => Arc::new(field.as_ref().clone().with_data_type(data_type)),
        None => field.clone(),
    };
    let fields: Vec<_> = metadata.schema().fields().iter().enumerate().map(retyped).collect();
    let schema = Schema::new_with_metadata(fields, metadata.schema().metadata().clone());
    let options = ArrowReaderOptions::new().with_schema(Arc::new(schema));
    ArrowReaderMetadata::try_new(metadata.metadata().clone(), options)
}

impl Source {
    /// Every reader opens the file for itself: a file that is shared has one position.
    fn reader(
        &self,
        group: usize,
        needed: Option<&[usize]>,
    ) -> Result<ParquetRecordBatchReader, String> {
        let file = File::open(&self.path).map_err(text)?;
        let metadata = match needed {
            Some(_) => with_words(&self.metadata, group).map_err(text)?,
            None => self.metadata.clone(),
        };
        let schema = metadata.metadata().file_metadata().schema_descr_ptr();
        let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
            .with_row_groups(vec![group])
            .with_batch_size(ROWS);
        // Without any column there would be no rows.
        if let Some(needed @ [_, ..]) = needed {
            let mask = ProjectionMask::roots(&schema, needed.iter().copied());
            builder = builder.with_projection(mask);
        }
        builder.build().map_err(text)
    }
}

/// One row group of a file, in the hands of one thread.
pub struct RowGroup {
    source: Arc<Source>,
    group: usize,
    next_row: u64,
    next_batch: usize,
    reader: ParquetRecordBatchReader,
    whole: Option<Whole>,
}

/// The same rows with all columns, for those that are shown whole.
struct Whole {
    reader: ParquetRecordBatchReader,
    /// How many batches were read, and the last of them.
    read: usize,
    rows: StructArray,
}

/// Some rows.
pub struct Rows {
    /// Number of the first one, counted from 1.
    pub first: u64,
    /// The needed columns.
    pub columns: StructArray,
    batch: usize,
}

impl Rows {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl RowGroup {
    /// The next rows of it, if there are any.
    pub fn next_rows(&mut self) -> Result<Option<Rows>, FileError> {
        let Some(batch) = self.reader.next() else { return Ok(None) };
        let batch: RecordBatch = batch.map_err(|e| self.failed(&e))?;
        let first = self.next_row;
        self.next_row += batch.num_rows() as u64;
        self.next_batch += 1;
        Ok(Some(Rows { first, columns: batch.into(), batch: self.next_batch }))
    }

    /// Adds one of these rows to `out` as a JSON object, with all columns. To be asked in the order
    /// of the rows.
    pub fn write_record(
        &mut self,
        rows: &Rows,
        row: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), FileError> {
        if self.source.needed.is_none() {
            write_object(&rows.columns, row, out);
            return Ok(());
        }
        let mut whole = match self.whole.take() {
            Some(whole) => whole,
            None => {
                let reader = self.source.reader(self.group, None).map_err(|e| self.failed(&e))?;
                Whole { reader, read: 0, rows: StructArray::new_empty_fields(0, None) }
            }
        };
        while whole.read < rows.batch {
            let batch = whole.reader.next();
            let batch = batch.ok_or_else(|| self.failed(&"it has become shorter"))?;
            whole.rows = batch.map_err(|e| self.failed(&e))?.into();
            whole.read += 1;
        }
        if row >= whole.rows.len() {
            return Err(self.failed(&"it has become shorter"));
        }
        write_object(&whole.rows, row, out);
        self.whole = Some(whole);
        Ok(())
    }

    fn failed(&self, reason: &dyn Display) -> FileError {
        let path = self.source.path.display().to_string();
        FileError::Parquet { path, reason: reason.to_string() }
    }
}

impl std::fmt::Debug for RowGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "row group {} of {}", self.group, self.source.path.display())
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}

/// Whether values of a type become JSON.
pub(crate) fn has_json(data_type: &DataType) -> bool {
    use DataType as T;
    match data_type {
        T::Null | T::Boolean | T::Utf8 | T::LargeUtf8 | T::Utf8View | T::Timestamp(..) => true,
        T::Int8 | T::Int16 | T::Int32 | T::Int64 | T::Float32 | T::Float64 => true,
        T::UInt8 | T::UInt16 | T::UInt32 | T::UInt64 => true,
        T::Struct(_) => true,
        T::Dictionary(..) => is_words(data_type),
        T::List(field) | T::LargeList(field) => has_json(field.data_type()),
        _ => false,
    }
}

pub(crate) fn write_object(rows: &StructArray, row: usize, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut first = true;
    for (field, column) in rows.fields().iter().zip(rows.columns()) {
        if !has_json(field.data_type()) {
            continue;
        }
        if !first {
            out.push(b',');
        }
        first = false;
        write_json(field.name(), out);
        out.push(b':');
        write_value(column, row, out);
    }
    out.push(b'}');
}

fn write_value(array: &dyn Array, row: usize, out: &mut Vec<u8>) {
    use DataType as T;
    if array.is_null(row) {
        return out.extend_from_slice(b"null");
    }
    match array.data_type() {
        T::Boolean => write_json(&array.as_boolean().value(row), out),
        T::Utf8 => write_json(array.as_string::<i32>().value(row), out),
        T::LargeUtf8 => write_json(array.as_string::<i64>().value(row), out),
        T::Utf8View => write_json(array.as_string_view().value(row), out),
        T::Dictionary(..) if is_words(array.data_type()) => {
            let words = array.as_dictionary::<Int32Type>();
            write_value(words.values(), words.keys().value(row) as usize, out)
        }
        T::Int8 => write_json(&number::<Int8Type>(array, row), out),
        T::Int16 => write_json(&number::<Int16Type>(array, row), out),
        T::Int32 => write_json(&number::<Int32Type>(array, row), out),
        T::Int64 => write_json(&number::<Int64Type>(array, row), out),
        T::UInt8 => write_json(&number::<UInt8Type>(array, row), out),
        T::UInt16 => write_json(&number::<UInt16Type>(array, row), out),
        T::UInt32 => write_json(&number::<UInt32Type>(array, row), out),
        T::UInt64 => write_json(&number::<UInt64Type>(array, row), out),
        T::Float32 => write_json(&number::<Float32Type>(array, row), out),
        T::Float64 => write_json(&number::<Float64Type>(array, row), out),
        T::Timestamp(unit, _) => write_json(&milliseconds(array, *unit, row), out),
        T::Struct(_) => write_object(array.as_struct(), row, out),
        T::List(_) => write_list(&array.as_list::<i32>().value(row), out),
        T::LargeList(_) => write_list(&array.as_list::<i64>().value(row), out),
        _ => out.extend_from_slice(b"null"),
    }
}

fn write_list(list: &dyn Array, out: &mut Vec<u8>) {
    out.push(b'[');
    for place in 0..list.len() {
        if place > 0 {
            out.push(b',');
        }
        write_value(list, place, out);
    }
    out.push(b']');
}

fn number<T: ArrowPrimitiveType>(array: &dyn Array, row: usize) -> T::Native {
    array.as_primitive::<T>().value(row)
}

fn milliseconds(array: &dyn Array, unit: TimeUnit, row: usize) -> i64 {
    match unit {
        TimeUnit::Second => number::<TimestampSecondType>(array, row).saturating_mul(1000),
        TimeUnit::Millisecond => number::<TimestampMillisecondType>(array, row),
        TimeUnit::Microsecond => number::<TimestampMicrosecondType>(array, row).div_euclid(1000),
        TimeUnit::Nanosecond => number::<TimestampNanosecondType>(array, row).div_euclid(1_000_000),
    }
}

fn write_json(value: &(impl Serialize + ?Sized), out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("plain values always serialize, and a Vec takes all");
}
