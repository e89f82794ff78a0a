//! Training examples of a lake, and the definition of their labels in SQL, which shares no line with
//! the program.

use crate::data::Data;
use crate::duckdb::{DuckDb, literal, reference_tables};
use std::path::Path;

/// SQL that makes `examples` of what the newest manifests list, the last label of each (docs/lake.md
/// shows the same), and `rows` of all that was written.
pub fn examples_of(lake: &Path) -> String {
    let lake = lake.display().to_string().replace('\'', "''");
    format!(
        "set variable manifests = (
           select list(newest) from (
             select max(file) as newest from glob('{lake}/example-manifests/*/*/*.json')
             group by regexp_replace(file, '[^/]*$', '')));
         set variable files = (
           select list('{lake}/' || file.path) from (
             select unnest(entry.files) as file from (
               select unnest(entries) as entry from read_json(getvariable('manifests')))));
         create or replace view rows as
           select * from read_parquet(getvariable('files'), hive_partitioning = true);
         create or replace view examples as
           select * from rows qualify row_number() over (
             partition by request_id, video_id, epoch_start_ms order by as_of desc) = 1;"
    )
}

/// The definition, over the files of events: `expected (request_id, video, epoch_start_ms, first_ts,
/// device, country, seconds)`.
pub fn definition(data: &Data) -> Vec<String> {
    let mut texts = reference_tables(&data.impressions, &data.plays);
    let file = literal(&data.impressions);
    texts.push(format!(
        "create table attributes as
         select request_id, video_id as video, ts, arg_min(device, (device, country)) as device,
                arg_min(country, (device, country)) as country
         from read_ndjson({file}, columns = {{request_id: 'VARCHAR', video_id: 'VARCHAR', ts: 'BIGINT',
           device: 'VARCHAR', country: 'VARCHAR'}})
         where device is distinct from 'console' group by all"
    ));
    texts.push(
        "create table pairs as
         select i.request_id, i.video, i.ts, p.ts as play_ts,
                i.ts // getvariable('epoch_ms') * getvariable('epoch_ms') as epoch_start_ms
         from impressions i left join plays p
           on i.request_id = p.request_id and i.video = p.video
          and p.ts - i.ts between -getvariable('early_ms') and getvariable('within_ms')"
            .to_owned(),
    );
    // The first play that matches any sighting of the epoch, and the last sighting before it.
    texts.push(
        "create table expected as
         with firsts as (
           select request_id, video, epoch_start_ms, min(ts) as first_ts, min(play_ts) as play_ts
           from pairs group by all),
         sightings as (
           select f.*, max(p.ts) as seen_ts from firsts f left join pairs p
             on p.request_id = f.request_id and p.video = f.video
            and p.epoch_start_ms = f.epoch_start_ms and p.play_ts = f.play_ts and p.ts <= f.play_ts
           group by all)
         select s.request_id, s.video, s.epoch_start_ms, s.first_ts, a.device, a.country,
                (s.play_ts - s.seen_ts) / 1000 as seconds
         from sightings s join attributes a
           on a.request_id = s.request_id and a.video = s.video and a.ts = s.first_ts"
            .to_owned(),
    );
    texts
}

/// Examples that differ from the definition, and how many there should be, and how many played.
#[track_caller]
pub fn differing(duckdb: &DuckDb, data: &Data, lake: &Path) -> [u64; 3] {
    let view = examples_of(lake);
    let found = "create table found as
        select request_id, video_id as video, epoch_start_ms, epoch_ms(impression_time) as first_ts,
               device, country, seconds_to_play as seconds
        from examples where played = (seconds_to_play is not null)";
    let compare = "select (select count(*) from (from found except all from expected))
                        + (select count(*) from (from expected except all from found)),
                          (select count(*) from expected), (select count(seconds) from expected)";
    let definition = definition(data);
    let texts = [view.as_str(), found].into_iter().chain(definition.iter().map(String::as_str));
    let rows = duckdb.rows(&texts.chain([compare]).collect::<Vec<_>>());
    [0, 1, 2].map(|at| rows[0][at].as_u64().expect("a number"))
}
