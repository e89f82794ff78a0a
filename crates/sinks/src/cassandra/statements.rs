//! The statements of the Cassandra store. What is counted is written by UPDATEs, never by INSERTs:
//! those would write a marker of the row, too, which has a time to live and a timestamp of its own.

use futures_util::future::try_join;
use marquee_model::Side;
use scylla::client::session::Session;
use scylla::errors::PrepareError;
use scylla::statement::SerialConsistency;
use scylla::statement::prepared::PreparedStatement;

/// All of them, prepared.
pub(super) struct Statements {
    pub(super) read_generation: PreparedStatement,
    pub(super) create_generation: PreparedStatement,
    counts: [PreparedStatement; 2],
    pub(super) write_members: PreparedStatement,
    pub(super) write_part: PreparedStatement,
    pub(super) write_slice: PreparedStatement,
    pub(super) write_page: PreparedStatement,
    pub(super) write_frontier: PreparedStatement,
    pub(super) write_state: PreparedStatement,
    pub(super) write_gap: PreparedStatement,
    pub(super) write_repair: PreparedStatement,
    pub(super) read_pages: PreparedStatement,
    pub(super) read_slices: PreparedStatement,
    pub(super) read_counts: PreparedStatement,
    pub(super) read_counts_of_lane: PreparedStatement,
    pub(super) read_counts_of_video: PreparedStatement,
    pub(super) read_parts: PreparedStatement,
    pub(super) read_members: PreparedStatement,
    pub(super) read_lane: PreparedStatement,
    pub(super) read_frontiers: PreparedStatement,
    pub(super) read_gaps: PreparedStatement,
    pub(super) read_repairs: PreparedStatement,
}

/// Rows of a page of an answer. Rows of members are large.
const PAGE_ROWS: i32 = 5_000;
const PAGE_ROWS_OF_MEMBERS: i32 = 16;

/// A generation is created once, whatever data centers there are.
fn once_everywhere(mut statement: PreparedStatement) -> PreparedStatement {
    statement.set_serial_consistency(Some(SerialConsistency::Serial));
    statement
}

const CELL: &str = "generation = ? AND epoch_ms = ? AND epoch_start = ? AND slice = ?";

impl Statements {
    /// Prepares all of them; the tables must be there.
    pub(super) async fn prepare(session: &Session, keyspace: &str) -> Result<Self, PrepareError> {
        let prepare = |text: String, rows: i32| async move {
            let mut statement = session.prepare(text).await?;
            statement.set_is_idempotent(true);
            statement.set_page_size(rows);
            Ok::<_, PrepareError>(statement)
        };
        let read = |table: &str, what: &str, of: &str, rows: i32| {
            prepare(format!("SELECT {what} FROM {keyspace}.{table} WHERE {of}"), rows)
        };
        let update = |table: &str, set: &str, of: &str| {
            let using = "USING TIMESTAMP ? AND TTL ?";
            prepare(format!("UPDATE {keyspace}.{table} {using} SET {set} WHERE {of}"), 1)
        };
        let of_count = format!("{CELL} AND bucket = ? AND video = ? AND lane = ?");
        let of_members = format!("{CELL} AND bucket = ? AND lane = ? AND part = ?");
        let of_names = format!("{of_members} AND name >= ?");
        let known = "known = true";
        let of_page = "generation = ? AND epoch_ms = ? AND page = ?";
        let of_slice = format!("{of_page} AND epoch_start = ? AND slice = ?");
        let of_lane = "generation = ? AND lane = ?";
        let of_part = format!("{CELL} AND bucket = ? AND lane = ? AND part = ?");
        let bucket = format!("{CELL} AND bucket = ?");
        let counts = "video, lane, impressions, plays";
        let lane = "frontier, state, WRITETIME(state)";
        let create = format!(
            "INSERT INTO {keyspace}.generations (generation, name) VALUES (?, ?) IF NOT EXISTS"
        );
        let of_video = format!("{bucket} AND video = ?");
        // Within a partition this only spares the way of rows that nobody wants.
        let of_its_lane = format!("{bucket} AND lane = ? ALLOW FILTERING");
        let (impressions, plays) = try_join(
            update("counts", "impressions = ?", &of_count),
            update("counts", "plays = ?", &of_count),
        )
        .await?;
        Ok(Statements {
            read_generation: read("generations", "generation", "name = ?", 1).await?,
            create_generation: once_everywhere(prepare(create, 1).await?),
            counts: [impressions, plays],
            write_members: update("members", "ids = ?", &format!("{of_members} AND name = ?"))
                .await?,
            write_part: update("parts", known, &of_part).await?,
            write_slice: update("slices", known, &of_slice).await?,
            write_page: update("pages", known, of_page).await?,
            write_frontier: update("lanes", "frontier = ?", of_lane).await?,
            write_state: update("lanes", "state = ?", of_lane).await?,
            write_gap: update("gaps", known, "generation = ? AND gap = ?").await?,
            read_pages: read("pages", "page", "generation = ? AND epoch_ms = ?", PAGE_ROWS).await?,
            read_slices: read("slices", "epoch_start, slice", of_page, PAGE_ROWS).await?,
            read_counts: read("counts", counts, &bucket, PAGE_ROWS).await?,
            read_counts_of_lane: read("counts", counts, &of_its_lane, PAGE_ROWS).await?,
            read_counts_of_video: read("counts", counts, &of_video, PAGE_ROWS).await?,
            read_parts: read("parts", "bucket, lane, part", CELL, PAGE_ROWS).await?,
            read_members: read("members", "name, ids", &of_names, PAGE_ROWS_OF_MEMBERS).await?,
            read_lane: read("lanes", lane, of_lane, 1).await?,
            read_frontiers: read("lanes", "lane, frontier", "generation = ?", PAGE_ROWS).await?,
            write_repair: update("repairs", known, "generation = ? AND repair = ?").await?,
            read_repairs: read("repairs", "repair", "generation = ?", PAGE_ROWS).await?,
            read_gaps: read("gaps", "gap", "generation = ?", PAGE_ROWS).await?,
        })
    }

    /// Writes the count of one side.
    pub(super) fn count(&self, side: Side) -> &PreparedStatement {
        &self.counts[side as usize]
    }
}
