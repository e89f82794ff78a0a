//! What version 1 has written is read by every later one: a manifest and a file of cells.
//!
//! `MARQUEE_WRITE_FIXTURE=1 cargo test -p marquee-sinks fixture` writes those of this version, for a
//! new format only: what is there stays.

use super::super::parquet::{self, CellsWriter};
use super::super::{Dropped, Entry, LakeFile, Layout, Manifest, Row};
use bytes::Bytes;
use marquee_model::{CellCounts, CellKey};
use marquee_pipeline::chunk::Id;
use std::path::PathBuf;

const UUID: &str = "01234567-89ab-cdef-0123-456789abcdef";

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/lake").join(name)
}

/// Bytes of a fixture, after they were written where somebody asks for that and there are none.
fn bytes(name: &str, written: &[u8]) -> Vec<u8> {
    let path = fixture(name);
    if std::env::var_os("MARQUEE_WRITE_FIXTURE").is_some() && !path.exists() {
        std::fs::write(&path, written).expect("the folder is there");
    }
    std::fs::read(path).expect("the fixture is there")
}

fn rows() -> Vec<Row> {
    let row = |video: &str, slice: &str, ids: Option<&[&str]>, complete| {
        let key = CellKey {
            video: video.to_owned(),
            epoch_start_ms: 1_479_688_200_000,
            slice: slice.to_owned(),
            epoch_ms: 1_800_000,
        };
        let counts = CellCounts { impressions: ids.map_or(9, |ids| ids.len() as u64), plays: 0 };
        let set = ids.map(|ids| ids.iter().map(|id| Id::of(id)).collect());
        Row { key, counts, requests: [set, Some(Default::default())], complete }
    };
    vec![
        row("80192098", "", Some(&[UUID, "request 1", "\u{e9}t\u{e9}"]), true),
        row("80192098", r#"{"country":"US"}"#, Some(&[UUID]), true),
        row("a \"b\"", "", None, false),
    ]
}

fn manifest(file: &[u8]) -> Manifest {
    let layout = Layout::new("0158-af", 4, 1_800_000, 1_800_000);
    let path =
        "cells/generation=0158-af/day=2016-11-21/lane=3/20161121T003000Z-c0ffee-v1-p0.parquet";
    let entry = Entry {
        lane: 3,
        from_ms: 1_479_688_200_000,
        to_ms: 1_479_690_000_000,
        rows: 3,
        impressions: 13,
        plays: 0,
        incomplete_rows: 1,
        // A build that did not say so.
        lists: false,
        fingerprint: "66d99500edcd9517".to_owned(),
        read_to: Vec::new(),
        files: vec![LakeFile { path: path.to_owned(), bytes: file.len() as u64, rows: 3 }],
    };
    let dropped = Dropped { path: "cells/old.parquet".to_owned(), since_ms: 7 };
    Manifest {
        version: 2,
        entries: vec![entry],
        dropped: vec![dropped],
        ..Manifest::empty(&layout, "2016-11-21")
    }
}

#[test]
fn what_version_1_has_written_is_read() {
    let mut writer = CellsWriter::new(1 << 20);
    for row in rows() {
        assert!(writer.add(row).expect("it is written").is_none());
    }
    let written = writer.finish().expect("it is written").expect("there are rows").bytes;
    let file = bytes("cells-1.parquet", &written);
    let mut read = Vec::new();
    parquet::read(Bytes::from(file.clone()), "fixture", &mut |row| read.push(row))
        .expect("it reads");
    assert_eq!(read, rows());

    let json = bytes("manifest-1.json", &manifest(&written).to_json());
    let layout = Layout::new("0158-af", 4, 1_800_000, 1_800_000);
    let read = Manifest::of_json(&json, "fixture", &layout).expect("it reads");
    assert_eq!(read, manifest(&file));
}
