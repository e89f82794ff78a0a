//! Tells a run in words.

use crate::machine::Outcome;
use crate::script::{Script, Setup, UNIT_MS};

/// What was set, what happened, and what went wrong.
pub fn story(script: &Script, outcome: &Outcome) -> String {
    let mut lines = vec![settings(&script.setup)];
    lines.extend(outcome.trace.iter().map(|line| format!("  {line}")));
    lines.push(match &outcome.fault {
        Some(fault) => format!("Against the contract: {}. {}", fault.rule, fault.words),
        None => "Nothing went against the contract.".to_owned(),
    });
    lines.join("\n")
}

fn settings(setup: &Setup) -> String {
    let seconds = |ms: i64| format!("{} s", ms / UNIT_MS);
    let who = match (setup.is_embedded, setup.processes) {
        (true, _) => "One process has the log to itself".to_owned(),
        (false, 1) => "One process is alone in its group".to_owned(),
        (false, processes) => format!("{processes} processes share a group"),
    };
    let epochs: Vec<String> = setup.epochs_ms.iter().map(|ms| seconds(*ms)).collect();
    let idle = setup.idle_ms.map_or("hold".to_owned(), seconds);
    let mut text = format!(
        "{who}, {} owner(s) each, {} lane(s). Epochs of {}, within {}, early {}, lateness {}, idle \
         {idle}, watermark by {} request(s); batches of {} events or {} ms, reads of {}.",
        setup.owners,
        setup.lanes,
        epochs.join(" and "),
        seconds(setup.within_ms),
        seconds(setup.early_ms),
        seconds(setup.lateness_ms),
        setup.support,
        setup.batch_events,
        setup.batch_interval_ms,
        setup.chunk
    );
    let others = [
        (setup.is_shared, "All share one store"),
        (setup.by_request, "match = request"),
        (setup.joined, "impressions = joined"),
        (setup.by_play, "epoch_of_play = play"),
        (setup.slices, "slices by country"),
        (setup.filter, "impressions of c1 are filtered"),
    ];
    for (_, words) in others.iter().filter(|(is_set, _)| *is_set) {
        text.push_str(&format!(" {words}."));
    }
    if setup.memory_bytes < 1 << 30 {
        text.push_str(&format!(" {} bytes of memory for the state.", setup.memory_bytes));
    }
    if let Some(interval_ms) = setup.snapshots_ms {
        text.push_str(&format!(" Snapshots every {interval_ms} ms."));
    }
    if setup.max_facts < 10_000 {
        text.push_str(&format!(" max_facts = {}.", setup.max_facts));
    }
    text
}
