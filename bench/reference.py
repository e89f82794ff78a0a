"""reference.py IMPRESSIONS PLAYS OUT: the reference job by DuckDB, with two threads.

Counts, for each video and half hour, the requests that showed it and those that played it: what
`marquee backfill -c examples/reference.toml` counts. Prints the seconds that the query took, reading
and writing included, Python's start and imports not.
"""

import sys
import time

import duckdb

QUERY = """
copy (
  with shown as (
    select request_id, video_id, ts
    from $impressions
    where device <> 'console'
  ), played as (
    select request_id, video_id, ts
    from $plays
    where duration_s >= 60
  ), impressions_of as (
    select video_id, ts // 1800000 as epoch, count(distinct request_id) as impressions
    from shown group by all
  ), plays_of as (
    select s.video_id, s.ts // 1800000 as epoch, count(distinct s.request_id) as plays
    from shown s join played p
      on p.request_id = s.request_id and p.video_id = s.video_id
     and p.ts between s.ts and s.ts + 3600000
    group by all
  )
  select video_id, epoch * 1800000 as epoch_start_ms, '' as slice, impressions,
         coalesce(plays, 0) as plays
  from impressions_of left join plays_of using (video_id, epoch)
  order by video_id, epoch_start_ms
) to '{out}' (header)
"""


def literal(path):
    return "'" + path.replace("'", "''") + "'"


def reader(path, columns):
    """Parquet by its name; everything else is NDJSON, of which only these columns are read."""
    if path.endswith(".parquet"):
        return f"read_parquet({literal(path)})"
    columns = ", ".join(f"{name}: '{kind}'" for name, kind in columns.items())
    return f"read_ndjson({literal(path)}, columns = {{{columns}}})"


IDS = {"request_id": "VARCHAR", "video_id": "VARCHAR", "ts": "BIGINT"}

impressions, plays, out = sys.argv[1:4]
query = QUERY.replace("$impressions", reader(impressions, IDS | {"device": "VARCHAR"}))
query = query.replace("$plays", reader(plays, IDS | {"duration_s": "BIGINT"}))
query = query.replace("'{out}'", literal(out))
connection = duckdb.connect()
connection.execute("set threads = 2")
connection.execute("set enable_progress_bar = false")
start = time.perf_counter()
connection.execute(query)
print(time.perf_counter() - start)
