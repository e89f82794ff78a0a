"""Reads files of the lake with Polars and writes their cells, lanes added up, as JSON.

The sets are read, too, and must be as large as the counts, where they are kept."""

import json
import sys

import polars as pl

asked = json.load(sys.stdin)
cells = pl.scan_parquet(
    asked["files"], hive_partitioning=True, storage_options=asked["options"] or None
)
wrong = cells.filter(
    (pl.col("impression_requests").list.n_unique() != pl.col("impressions"))
    | (pl.col("play_requests").list.n_unique() != pl.col("plays"))
    | (pl.col("epoch_start").dt.epoch("ms") != pl.col("epoch_start_ms"))
).collect()
if len(wrong):
    sys.exit(f"sets and counts differ: {wrong}")
key = ["video_id", "epoch_start_ms", "epoch_ms", "slice"]
sums = cells.group_by(key).agg(pl.col("impressions").sum(), pl.col("plays").sum())
json.dump([list(row) for row in sums.select(*key, "impressions", "plays").collect().iter_rows()], sys.stdout)
