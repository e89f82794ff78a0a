//! Cells as files: CSV (RFC 4180) and Parquet, sorted by video, epoch and slice.
//!
//! A file is written under another name and renamed, so that nobody sees half of one.

use crate::SinkError;
use arrow_array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, UInt64Array};
use marquee_model::{CellCounts, CellKey};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A row: a cell and its counts.
pub type Row = (CellKey, CellCounts);

/// Writes rows, which must be sorted, to `path`: Parquet if its name ends in `.parquet`, else CSV.
/// `with_length` adds the column `epoch_ms`, for several lengths of epochs.
pub fn write_file(path: &Path, rows: &[Row], with_length: bool) -> Result<(), SinkError> {
    debug_assert!(rows.is_sorted_by(|a, b| order(&a.0) <= order(&b.0)));
    let partial = partial_name(path);
    let is_parquet = path.extension().is_some_and(|e| e == "parquet");
    let write = || -> Result<(), Box<dyn std::error::Error>> {
        let mut file = File::create(&partial)?;
        if is_parquet {
            write_parquet(&mut file, rows, with_length)?;
        } else {
            let mut out = BufWriter::new(&mut file);
            write_csv(&mut out, rows, with_length)?;
            out.flush()?;
        }
        file.sync_all()?;
        std::fs::rename(&partial, path)?;
        Ok(())
    };
    write().map_err(|error| {
        let _ = std::fs::remove_file(&partial);
        SinkError::File { path: path.display().to_string(), error: error.to_string() }
    })
}

/// The order of rows in files: video (bytewise), epoch, slice.
pub fn order(cell: &CellKey) -> (&[u8], i64, &str, i64) {
    (cell.video.as_bytes(), cell.epoch_start_ms, &cell.slice, cell.epoch_ms)
}

fn partial_name(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.partial", std::process::id()));
    path.with_file_name(name)
}

/// Writes rows as CSV, with a header.
pub fn write_csv(out: &mut impl Write, rows: &[Row], with_length: bool) -> std::io::Result<()> {
    out.write_all(b"video_id,epoch_start_ms,slice,impressions,plays")?;
    out.write_all(if with_length { b",epoch_ms\n" } else { b"\n" })?;
    for (cell, counts) in rows {
        write_text(out, &cell.video)?;
        out.write_all(b",")?;
        write_number(out, cell.epoch_start_ms)?;
        out.write_all(b",")?;
        write_text(out, &cell.slice)?;
        for count in [counts.impressions, counts.plays] {
            out.write_all(b",")?;
            write_number(out, count)?;
        }
        if with_length {
            out.write_all(b",")?;
            write_number(out, cell.epoch_ms)?;
        }
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// A number: JSON's form of it is that of CSV, and is written faster than by a format.
fn write_number(out: &mut impl Write, number: impl serde::Serialize) -> std::io::Result<()> {
    Ok(serde_json::to_writer(out, &number)?)
}

/// A field, quoted where RFC 4180 asks for it.
fn write_text(out: &mut impl Write, text: &str) -> std::io::Result<()> {
    if text.contains([',', '"', '\n', '\r']) {
        write!(out, "\"{}\"", text.replace('"', "\"\""))
    } else {
        out.write_all(text.as_bytes())
    }
}

fn write_parquet(
    file: &mut File,
    rows: &[Row],
    with_length: bool,
) -> Result<(), parquet::errors::ParquetError> {
    let texts = |text: fn(&CellKey) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(|(cell, _)| text(cell))))
    };
    let numbers = |number: fn(&CellCounts) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(|(_, counts)| number(counts))))
    };
    let times = |time: fn(&CellKey) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|(cell, _)| time(cell))))
    };
    let mut columns = vec![
        ("video_id", texts(|cell| &cell.video)),
        ("epoch_start_ms", times(|cell| cell.epoch_start_ms)),
        ("slice", texts(|cell| &cell.slice)),
        ("impressions", numbers(|counts| counts.impressions)),
        ("plays", numbers(|counts| counts.plays)),
    ];
    if with_length {
        columns.push(("epoch_ms", times(|cell| cell.epoch_ms)));
    }
    // A backfill sees all its input: its cells are complete.
    columns.push(("complete", Arc::new(BooleanArray::from(vec![true; rows.len()]))));
    let batch = RecordBatch::try_from_iter(columns)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties))?;
    writer.write(&batch)?;
    writer.close()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_need_it_are_quoted() {
        let cell = |video: &str, slice: &str| CellKey {
            video: video.to_owned(),
            epoch_start_ms: 0,
            epoch_ms: 60_000,
            slice: slice.to_owned(),
        };
        let rows = [
            (cell("a,\"b\"", ""), CellCounts { impressions: 2, plays: 1 }),
            (cell("c", r#"{"country":"US"}"#), CellCounts { impressions: 3, plays: 0 }),
        ];
        let mut out = Vec::new();
        write_csv(&mut out, &rows, true).expect("memory takes all");
        assert_eq!(
            String::from_utf8_lossy(&out),
            "video_id,epoch_start_ms,slice,impressions,plays,epoch_ms\n\
             \"a,\"\"b\"\"\",0,,2,1,60000\n\
             c,0,\"{\"\"country\"\":\"\"US\"\"}\",3,0,60000\n"
        );
    }

    #[test]
    fn a_folder_that_does_not_exist_is_named_and_leaves_nothing() {
        let error = write_file(Path::new("no/such/folder/x.csv"), &[], false).expect_err("missing");
        assert!(error.to_string().starts_with("cannot write no/such/folder/x.csv: "), "{error}");
    }
}
