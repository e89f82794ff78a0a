//! Parquet: each row becomes a line of JSON, so that one mapping serves all forms of input.
//!
//! Timestamps become whole milliseconds, as a mapping with `time_unit = "ms"` expects. Columns of a
//! type that JSON has no plain form for (decimals, dates, bytes, maps) are left out, with a
//! warning.

use super::Chunk;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch, StructArray};
use arrow_schema::{DataType, TimeUnit};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde::Serialize;
use std::fs::File;
use std::path::Path;

const ROWS: usize = 8192;

/// The rows of one file.
pub(super) struct Rows {
    reader: ParquetRecordBatchReader,
    row: u64,
}

impl Rows {
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|e| e.to_string())?;
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| e.to_string())?;
        for field in builder.schema().fields().iter().filter(|f| !has_json(f.data_type())) {
            tracing::warn!(
                "{}: column {:?} is left out: {} has no plain form in JSON; cast it to text or a \
                 number if it is needed",
                path.display(),
                field.name(),
                field.data_type(),
            );
        }
        let reader = builder.with_batch_size(ROWS).build().map_err(|e| e.to_string())?;
        Ok(Rows { reader, row: 0 })
    }

    pub(super) fn read(&mut self, chunk: &mut Chunk) -> Result<bool, String> {
        let Some(batch) = self.reader.next() else { return Ok(false) };
        let batch: RecordBatch = batch.map_err(|e| e.to_string())?;
        chunk.first_line = self.row + 1;
        self.row += batch.num_rows() as u64;
        chunk.bytes.clear();
        let rows = StructArray::from(batch);
        for row in 0..rows.len() {
            write_object(&rows, row, &mut chunk.bytes);
            chunk.bytes.push(b'\n');
        }
        chunk.len = chunk.bytes.len();
        Ok(true)
    }
}

fn has_json(data_type: &DataType) -> bool {
    use DataType as T;
    match data_type {
        T::Null | T::Boolean | T::Utf8 | T::LargeUtf8 | T::Utf8View | T::Timestamp(..) => true,
        T::Int8 | T::Int16 | T::Int32 | T::Int64 | T::Float32 | T::Float64 => true,
        T::UInt8 | T::UInt16 | T::UInt32 | T::UInt64 => true,
        T::Struct(_) => true,
        T::List(field) | T::LargeList(field) => has_json(field.data_type()),
        _ => false,
    }
}

fn write_object(rows: &StructArray, row: usize, out: &mut Vec<u8>) {
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
