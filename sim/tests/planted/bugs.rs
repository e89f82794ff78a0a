//! The faults that are planted: what each does, and the texts that are replaced for it.

/// One fault.
pub(crate) struct Bug {
    /// What goes wrong.
    pub(crate) name: &'static str,
    /// File, a text that occurs once in it, and what stands there instead.
    pub(crate) edits: &'static [(&'static str, &'static str, &'static str)],
}

const OWNER: &str = "crates/runtime/src/lanes/owner.rs";
const LANE: &str = "crates/runtime/src/lanes/lane.rs";
const REBUILD: &str = "crates/runtime/src/lanes/rebuild.rs";
const RESUME: &str = "crates/runtime/src/lanes/resume.rs";
const SNAPSHOTS: &str = "crates/runtime/src/lanes/snapshots.rs";
const MISPLACED: &str = "crates/runtime/src/lanes/misplaced.rs";
const JOIN: &str = "crates/pipeline/src/join.rs";
const CASSANDRA: &str = "crates/sinks/src/cassandra/writing.rs";
const PIPELINE: &str = "crates/pipeline/src/lane.rs";

pub(crate) const BUGS: [Bug; 14] = [
    Bug {
        name: "commit before acknowledge",
        edits: &[(
            OWNER,
            "            self.store.commit(&commits)?;",
            "            let (settings, name) = (&self.settings.plan.settings, &self.settings.name);
            let tell = |commit: &marquee_sinks::LaneCommit<'_>| {
                (commit.lane, commit.state.clone(), Note::text(commit.state, settings, name))
            };
            let told: Vec<_> = commits.iter().map(tell).collect();
            let told: Vec<Commit<'_>> = told
                .iter()
                .map(|(lane, state, note)| Commit {
                    lane: *lane,
                    next_offsets: &state.next_offsets,
                    note: note.clone(),
                })
                .collect();
            self.source.commit(&told)?;
            self.store.commit(&commits)?;",
        )],
    },
    Bug {
        name: "count written from a group that is not whole",
        edits: &[(
            REBUILD,
            "let (at, committed) = (resumption.from.clone(), state.next_offsets.clone());",
            "let (at, committed) = (state.next_offsets.clone(), state.next_offsets.clone());",
        )],
    },
    Bug {
        name: "a group dropped one epoch early",
        edits: &[(
            JOIN,
            "self.groups = self.groups.split_off(&first_open);",
            "self.groups = self.groups.split_off(&(first_open + 1));",
        )],
    },
    Bug {
        name: "facts dropped by their own age",
        edits: &[(
            JOIN,
            "group.facts_of(handle, fact.video).filter(|(_, f)| counted(*f));",
            "group.facts_of(handle, fact.video).filter(|(_, f)| {
            let age_ms = i64::from(fact.offset_ms) - i64::from(f.offset_ms);
            counted(*f) && age_ms <= self.settings.within_ms + self.settings.early_ms
        });",
        )],
    },
    Bug {
        name: "late event dropped silently",
        edits: &[(
            LANE,
            "Verdict::Late(reason) => self.letters.late(&at, reason.code()),",
            "Verdict::Late(_) => {}",
        )],
    },
    Bug {
        name: "watermark moved by a paused topic",
        edits: &[(
            LANE,
            "if log.is_idle(topic, self.lane) {",
            "if !log.has_data(topic, self.lane) {",
        )],
    },
    Bug {
        name: "rewind short by one epoch",
        edits: &[(
            RESUME,
            "let needed = plan.settings.oldest_needed_by(self.state.frontier);",
            "let needed = plan.settings.oldest_needed_by(self.state.frontier) + 1;",
        )],
    },
    Bug {
        name: "facts of closed epochs forgotten while rebuilding",
        edits: &[(
            PIPELINE,
            "let kept_from = settings.settings.oldest_needed_by(resume.frontier);",
            "let kept_from = resume.frontier;",
        )],
    },
    Bug {
        name: "frontier moving back, in a store",
        edits: &[(RESUME, "state.frontier = state.frontier.max(own_state.frontier);", "")],
    },
    Bug {
        name: "frontier moving back, in the group",
        edits: &[(RESUME, " || note.frontier() > own_state.frontier", "")],
    },
    Bug {
        name: "lanes with different partitioners",
        edits: &[(MISPLACED, "(lane != self.lane).then(", "(lane != self.lane && lane > 9).then(")],
    },
    // Taken before the commit, and believed. What is counted is compared with the store then, as
    // after every rebuild: that has to be left out, too, or the snapshot does no harm.
    Bug {
        name: "snapshot newer than the commit",
        edits: &[
            (
                OWNER,
                "        let mut commits = Vec::new();",
                "        self.save_all();
        let mut commits = Vec::new();",
            ),
            (
                SNAPSHOTS,
                "for lane in self.lanes.iter_mut().filter(|lane| lane.can_save()) {",
                "for lane in self.lanes.iter_mut() {",
            ),
            (SNAPSHOTS, "pairs().any(|(at, committed)| at > committed)", "pairs().any(|_| false)"),
            (
                REBUILD,
                "            if resumption.refuses(&is_equal) {",
                "            if resumption.snapshot.is_some() {
                return Ok(Progress::Whole);
            }
            if resumption.refuses(&is_equal) {",
            ),
        ],
    },
    Bug {
        name: "one write timestamp for both counts",
        edits: &[(
            CASSANDRA,
            "let timestamp = count_timestamp(key.epoch_start_ms, count);",
            "let both = cell.counts.impressions + cell.counts.plays;
                let timestamp = count_timestamp(key.epoch_start_ms, both);",
        )],
    },
    // What the simulation itself has found, and what was repaired.
    Bug {
        name: "an owner that waited for another one takes the log for cut",
        edits: &[(OWNER, "if self.claims.releases() != releases {", "if false {")],
    },
];

const MANIFEST: &str = "crates/sinks/src/lake/manifest.rs";

/// Faults of the lake's protocol, which has a simulation of its own: random histories of three writers
/// that are refused, cut off, stalled and killed at any call, and of stores that grow and are repaired
/// meanwhile (`crates/sinks/src/lake/tests.rs`).
pub(crate) const LAKE_BUGS: [Bug; 2] = [
    Bug {
        name: "a stalled owner's older file in place of a repaired one",
        edits: &[(
            MANIFEST,
            "if there != *base || self.sweeps != *sweeps {",
            "if self.sweeps != *sweeps {",
        )],
    },
    Bug {
        name: "unlisted files dropped while a writer that began before may list them",
        edits: &[(MANIFEST, "            next.sweeps += 1;\n", "")],
    },
];
