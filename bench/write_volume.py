"""How many counts a batch writes: one for each cell, lane and side that it changes, however many events
have changed it. Simulated over the events of `marquee generate` in their order of arrival:

    python3 bench/write_volume.py IMPRESSIONS.ndjson PLAYS.ndjson

A batch of N events stands for a batch interval of N / rate: at 1,000,000 events a second 250,000 events are
a quarter of a second. Needs DuckDB (`pip install duckdb`).
"""

import sys

import duckdb

impressions, plays = sys.argv[1:]
db = duckdb.connect()
db.execute(
    f"""
    create table events as
    select row_number() over () as number, * from (
      select ts, request_id, video_id, 0 as side
      from read_ndjson('{impressions}', columns = {{request_id: 'VARCHAR', video_id: 'VARCHAR', ts: 'BIGINT'}})
      union all
      select ts, request_id, video_id, 1
      from read_ndjson('{plays}', columns = {{request_id: 'VARCHAR', video_id: 'VARCHAR', ts: 'BIGINT'}})
      order by ts)
    """
)
total = db.execute("select count(*) from events").fetchone()[0]
print(f"{total} events, {db.execute('select count(distinct video_id) from events').fetchone()[0]} videos")
print("| events in a batch | lanes | counts written for 1,000 events | values of members for 1,000 events |")
print("|---|---|---|---|")
for batch in (500, 5_000, 50_000, 250_000, 1_000_000):
    for lanes in (4, 64):
        # A value of members holds what a batch adds to one of 16 buckets of videos.
        writes, values = db.execute(
            f"""
            select count(distinct (number // {batch}, hash(request_id) % {lanes}, video_id, ts // 1800000, side)),
                   count(distinct (number // {batch}, hash(request_id) % {lanes}, hash(video_id) % 16,
                                   ts // 1800000))
            from events where number < {total // batch * batch}
            """
        ).fetchone()
        events = total // batch * batch
        print(f"| {batch:,} | {lanes} | {writes / events * 1000:.0f} | {values / events * 1000:.1f} |")
