"""Reads a JSON list of SQL texts, runs them in one DuckDB, and writes the rows of the last as JSON."""

import json
import sys

import duckdb

connection = duckdb.connect()
connection.execute("set threads = 2")
connection.execute("set enable_progress_bar = false")  # it would stand before the rows
rows = []
for text in json.load(sys.stdin):
    rows = connection.execute(text).fetchall()
json.dump(rows, sys.stdout)
