//! End-to-end tests: the real binary, real files, real HTTP, kill -9, DuckDB.
