//! Parquet: each row becomes a line of JSON, so that one mapping serves all forms of input.
//!
//! Timestamps become whole milliseconds (as a mapping with `time_unit = "ms"` expects).

use super::Chunk;
use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMillisecondType};
use arrow_json::LineDelimitedWriter;
use arrow_schema::{DataType, Schema, TimeUnit};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

const ROWS: usize = 8192;

/// The rows of one file.
pub(super) struct Rows {
    reader: ParquetRecordBatchReader,
    row: u64,
}

impl Rows {
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let file = File::open(path).map_err(|e| e.to_string())?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file)
            .and_then(|builder| builder.with_batch_size(ROWS).build())
            .map_err(|e| e.to_string())?;
        Ok(Rows { reader, row: 0 })
    }

    pub(super) fn read(&mut self, chunk: &mut Chunk) -> Result<bool, String> {
        let Some(batch) = self.reader.next() else { return Ok(false) };
        let batch = plain_times(batch.map_err(|e| e.to_string())?)?;
        chunk.first_line = self.row + 1;
        self.row += batch.num_rows() as u64;
        LineDelimitedWriter::new(&mut chunk.bytes).write(&batch).map_err(|e| e.to_string())?;
        Ok(true)
    }
}

/// Timestamp columns as whole milliseconds since 1970 UTC.
fn plain_times(batch: RecordBatch) -> Result<RecordBatch, String> {
    let schema = batch.schema();
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        if !matches!(field.data_type(), DataType::Timestamp(..)) {
            fields.push(field.clone());
            columns.push(column.clone());
            continue;
        }
        let ms = arrow_cast::cast(column, &DataType::Timestamp(TimeUnit::Millisecond, None))
            .map_err(|e| e.to_string())?;
        let ms = ms.as_primitive::<TimestampMillisecondType>().reinterpret_cast::<Int64Type>();
        fields.push(Arc::new(field.as_ref().clone().with_data_type(DataType::Int64)));
        columns.push(Arc::new(ms));
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(|e| e.to_string())
}
