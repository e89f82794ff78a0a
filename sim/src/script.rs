//! What happens in one run: settings, records, and a list of actions.
//!
//! A script is plain data, and a run follows it without drawing anything more. So it can be run
//! again, and any part of it can be left out to find the shortest one that still fails.

/// Time is counted in units that are longer than the owners' own waits are coarse.
pub(crate) const UNIT_MS: i64 = 1_000;
/// When a run begins, milliseconds since 1970 UTC.
pub(crate) const START_MS: i64 = 1_000 * UNIT_MS;
/// Number of topics: impressions, plays.
pub(crate) const TOPICS: usize = 2;

/// One run.
#[derive(Clone, Debug)]
pub struct Script {
    /// What is counted, and by whom.
    pub setup: Setup,
    /// What the producers send, in the order in which the log takes it.
    pub records: Vec<Rec>,
    /// What happens, one after the other. After that all faults end, and everything that is left is
    /// counted.
    pub actions: Vec<Action>,
    /// Which processes are there at the end, one bit each; never none.
    pub last: u8,
}

/// Settings of a run. All durations are milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// Partitions of each topic.
    pub lanes: u32,
    /// Processes, each with a store of its own, unless they share one.
    pub processes: usize,
    /// Whether they share one.
    pub is_shared: bool,
    /// Owners of each process.
    pub owners: usize,
    /// Whether the one process has the log to itself, without a group.
    pub is_embedded: bool,
    /// Lengths of epochs, longest first.
    pub epochs_ms: Vec<i64>,
    /// Windows of the join.
    pub within_ms: i64,
    /// The same.
    pub early_ms: i64,
    /// How far the watermark stays behind.
    pub lateness_ms: i64,
    /// `idle_grace`; `None` is `idle = "hold"`.
    pub idle_ms: Option<i64>,
    /// Distinct requests that carry the watermark.
    pub support: usize,
    /// Setting `max_facts`.
    pub max_facts: u32,
    /// How far an event may be ahead of its record.
    pub max_ahead_ms: i64,
    /// `match = "request"`.
    pub by_request: bool,
    /// `impressions = "joined"`.
    pub joined: bool,
    /// `epoch_of_play = "play"`.
    pub by_play: bool,
    /// Whether cells are cut by country, too.
    pub slices: bool,
    /// Whether a filter drops one country's impressions.
    pub filter: bool,
    /// Memory for the state of all lanes; what exceeds it goes to disk.
    pub memory_bytes: u64,
    /// Events of a lane in one batch, at most.
    pub batch_events: usize,
    /// Records that one read gives out, at most.
    pub chunk: usize,
    /// How long a small batch waits.
    pub batch_interval_ms: u64,
    /// How often snapshots are taken; `None` is never.
    pub snapshots_ms: Option<u64>,
    /// How long an owner sleeps at least, and waits at most: the machine is busy.
    pub nap_ms: u64,
}

/// One record.
#[derive(Clone, Debug, PartialEq)]
pub struct Rec {
    /// 0: impressions, 1: plays.
    pub topic: usize,
    /// Number of the request.
    pub request: u8,
    /// Number of the video.
    pub video: u8,
    /// Number of the country; 0 is none.
    pub country: u8,
    /// When the log takes it.
    pub at_ms: i64,
    /// Event time.
    pub time_ms: i64,
    /// Record time.
    pub record_ms: i64,
    /// What is wrong with it.
    pub form: Form,
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Nothing.
    Good,
    /// Its producer uses another partitioner.
    Misplaced,
    /// It is no JSON.
    Broken,
    /// It has no value.
    Tombstone,
}

/// A call of an owner into the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Reading from the log.
    Read,
    /// Writing letters.
    Letters,
    /// Writing gaps into the store.
    Gaps,
    /// Writing a batch into the store.
    Commit,
    /// Telling the group.
    Tell,
    /// Taking a snapshot.
    Snapshot,
}

/// How much of a call that went wrong has taken effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// A part, of what may be torn: letters.
    Torn,
    /// All.
    All,
}

/// What becomes of commits to the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// They are taken and answered at once.
    Prompt,
    /// They are taken, but the owner never hears of it.
    Lost,
    /// They are refused.
    Refused,
    /// They are on their way until the owner waits, or dies.
    Slow,
    /// Only one partition of each lane is committed.
    Torn,
}

/// What happens to a snapshot on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// It is lost.
    Lost,
    /// A byte of it is another one, at so many thousandths of its length.
    Flipped(u16),
    /// Its end is lost, from so many thousandths of its length on.
    Torn(u16),
    /// Snapshots of the next process are copied to its place.
    Foreign,
}

/// How a partition looks to one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// As it is.
    Well,
    /// Its records are on their way.
    Slow,
    /// Nothing of it is known.
    Paused,
}

/// One action. The fields say whom it is about, by number, and how much of it there is.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// The log takes the next records.
    Produce(usize),
    /// Time passes.
    Pass(i64),
    /// An owner works.
    Step { process: usize, owner: usize, steps: u32 },
    /// A process starts, if it does not run.
    Start(usize),
    /// A process stops in order.
    Stop(usize),
    /// A process dies between two steps.
    Kill(usize),
    /// A process dies in the n-th such call from now.
    KillAt { process: usize, point: Point, nth: u32, effect: Effect },
    /// The n-th such call from now fails.
    FailAt { process: usize, point: Point, nth: u32, effect: Effect },
    /// The group loses sight of an owner, which learns of it after so many looks.
    Expel { process: usize, owner: usize, learns_after: u32 },
    /// The group shares the lanes anew.
    Rebalance,
    /// The next commits to the group meet this.
    Acks { process: usize, acks: Acks, count: u32 },
    /// A partition changes its looks.
    Partition { process: usize, topic: usize, lane: u32, mood: Mood },
    /// Retention leaves the last so many records of a partition.
    Trim { topic: usize, lane: u32, keep: u64 },
    /// The last snapshot of a lane meets this.
    Snapshot { process: usize, lane: u32, harm: Harm },
    /// A process's clock is wrong by so much.
    Clock { process: usize, offset_ms: i64 },
}
