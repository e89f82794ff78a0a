//! The members of stores: the sets themselves, judged by DuckDB and not by their sizes.

use crate::duckdb::{DuckDb, literal};
use marquee_model::Side;
use marquee_sinks::CellQuery;
use marquee_sinks::embedded::EmbeddedStore;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Cells of several stores of one generation, each cell with the larger count of each lane: what a
/// reader of all of them would see. Video, start of the epoch, impressions, plays.
pub fn counts(stores: &[&Path]) -> BTreeMap<(String, i64), (u64, u64)> {
    let mut of_lanes: BTreeMap<(String, i64, u32), (u64, u64)> = BTreeMap::new();
    for path in stores {
        let store = EmbeddedStore::look(path).expect("the store opens");
        let each = |cell: marquee_model::CellKey, lane, counts: marquee_model::CellCounts| {
            let best = of_lanes.entry((cell.video, cell.epoch_start_ms, lane)).or_default();
            *best = (best.0.max(counts.impressions), best.1.max(counts.plays));
        };
        store.scan(&CellQuery::default(), each).expect("the store is read");
    }
    let mut cells: BTreeMap<(String, i64), (u64, u64)> = BTreeMap::new();
    for ((video, epoch, _), (shown, played)) in of_lanes {
        let cell = cells.entry((video, epoch)).or_default();
        *cell = (cell.0 + shown, cell.1 + played);
    }
    cells
}

/// Writes the union of all members of some stores: side, video, start of the epoch, request id.
pub fn write(stores: &[&Path], to: &Path) {
    let mut out = BufWriter::new(File::create(to).expect("the folder is ours"));
    writeln!(out, "side,video,epoch_start_ms,request_id").expect("it is written");
    for path in stores {
        let store = EmbeddedStore::look(path).expect("the store opens");
        let each = |cell: &marquee_model::CellKey, _, side, id: &_| {
            let side = match side {
                Side::Impressions => "impressions",
                Side::Plays => "plays",
            };
            writeln!(out, "{side},{},{},{id}", cell.video, cell.epoch_start_ms).expect("written");
        };
        store.each_member(each).expect("the store is read");
    }
    out.flush().expect("it is written");
}

/// Members that the stores have and the oracle has not, and the reverse. `tables` makes the tables
/// `impressions` and `plays` as docs/semantics.sql wants them.
#[track_caller]
pub fn differences(duckdb: &DuckDb, tables: &[&str], stores: &[&Path], scratch: &Path) -> u64 {
    write(stores, scratch);
    differences_of(duckdb, tables, scratch)
}

/// The same of members that stand in a file: side, video, start of the epoch, request id.
#[track_caller]
pub fn differences_of(duckdb: &DuckDb, tables: &[&str], members: &Path) -> u64 {
    let found = format!(
        "create table found as select distinct side, video, epoch_start_ms, request_id
         from read_csv({}, header = true, columns = {{side: 'VARCHAR', video: 'VARCHAR',
           epoch_start_ms: 'BIGINT', request_id: 'VARCHAR'}});",
        literal(members)
    );
    let expected = "create table expected as
        select distinct 'impressions' as side, video,
               ts // getvariable('epoch_ms') * getvariable('epoch_ms') as epoch_start_ms, request_id
        from impressions
        union all
        select distinct 'plays', i.video,
               i.ts // getvariable('epoch_ms') * getvariable('epoch_ms'), i.request_id
        from impressions i join plays p
          on i.request_id = p.request_id and i.video = p.video
         and p.ts - i.ts between -getvariable('early_ms') and getvariable('within_ms');";
    let compare = "select (select count(*) from (from found except from expected))
                        + (select count(*) from (from expected except from found)),
                          (select count(*) from expected)";
    let texts: Vec<&str> = tables.iter().copied().chain([&*found, expected, compare]).collect();
    let rows = duckdb.rows(&texts);
    let number = |column: usize| rows[0][column].as_u64().expect("a number");
    assert!(number(1) > 0, "the oracle has no members: the data is empty");
    number(0)
}
