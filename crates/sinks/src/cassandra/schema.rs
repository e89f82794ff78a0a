//! The tables of the Cassandra store. They are made by `marquee schema --apply`, never by surprise.

use std::fmt::Write;

/// A table of the keyspace, and what stands in it.
struct Table {
    name: &'static str,
    about: &'static str,
    columns: &'static str,
}

const TABLES: [Table; 9] = [
    Table {
        name: "generations",
        about: "what the keyspace counts: one generation, for ever",
        columns: "name text PRIMARY KEY, generation text",
    },
    Table {
        name: "lanes",
        about: "where each lane goes on, and its first open epoch (a number of longest epochs since \
                1970)",
        columns: "generation text, lane int, frontier bigint, state text, \
                  PRIMARY KEY (generation, lane)",
    },
    Table {
        name: "pages",
        about: "which pages of 64 epochs have cells",
        columns: "generation text, epoch_ms bigint, page bigint, known boolean, \
                  PRIMARY KEY ((generation, epoch_ms), page)",
    },
    Table {
        name: "slices",
        about: "which epochs and slices of a page have cells",
        columns: "generation text, epoch_ms bigint, page bigint, epoch_start timestamp, slice text, \
                  known boolean, PRIMARY KEY ((generation, epoch_ms, page), epoch_start, slice)",
    },
    Table {
        name: "counts",
        about: "how many requests showed a video and played it: each count is written under the \
                timestamp start of epoch in microseconds + count, so that the largest one stays. \
                Never DELETE here",
        columns: "generation text, epoch_ms bigint, epoch_start timestamp, slice text, \
                  bucket smallint, video text, lane int, impressions bigint, plays bigint, \
                  PRIMARY KEY ((generation, epoch_ms, epoch_start, slice, bucket), video, lane)",
    },
    Table {
        name: "parts",
        about: "which parts the members of a slice of an epoch have",
        columns: "generation text, epoch_ms bigint, epoch_start timestamp, slice text, \
                  bucket smallint, lane int, part int, known boolean, \
                  PRIMARY KEY ((generation, epoch_ms, epoch_start, slice), bucket, lane, part)",
    },
    Table {
        name: "members",
        about: "the sets themselves: what a batch adds to the cells of a bucket. Never DELETE here",
        columns: "generation text, epoch_ms bigint, epoch_start timestamp, slice text, \
                  bucket smallint, lane int, part int, name blob, ids blob, \
                  PRIMARY KEY ((generation, epoch_ms, epoch_start, slice, bucket, lane, part), name)",
    },
    Table {
        name: "gaps",
        about: "which cells may lack members",
        columns: "generation text, gap text, known boolean, PRIMARY KEY (generation, gap)",
    },
    Table {
        name: "repairs",
        about: "what was added to closed epochs, and which gaps that has filled",
        columns: "generation text, repair text, known boolean, PRIMARY KEY (generation, repair)",
    },
];

/// The statements that make keyspace and tables where they are not there, each with a comment.
/// `replication` is the map of the keyspace as CQL writes it.
pub fn statements(keyspace: &str, replication: &str) -> Vec<String> {
    let mut statements =
        vec![format!("CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {replication}")];
    statements.extend(TABLES.iter().map(|Table { name, columns, .. }| {
        format!("CREATE TABLE IF NOT EXISTS {keyspace}.{name} ({columns})")
    }));
    statements
}

/// The same as a script for cqlsh, for people.
pub fn script(keyspace: &str, replication: &str) -> String {
    let mut script = String::new();
    let abouts = TABLES.iter().map(|table| table.about);
    let abouts = std::iter::once("the keyspace: one generation").chain(abouts);
    for (statement, about) in statements(keyspace, replication).iter().zip(abouts) {
        writeln!(script, "-- {about}\n{statement};\n").expect("a String takes all");
    }
    script
}
