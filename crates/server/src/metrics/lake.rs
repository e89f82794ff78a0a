//! What the sealer of the lake says of itself. All of it is about this process since it started:
//! what the lake holds is in its manifests.

use super::Number;
use marquee_sinks::lake::LakeNumbers;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

pub(super) fn register(registry: &mut Registry, lake: &LakeNumbers) {
    let registry = registry.sub_registry_with_prefix("lake");
    let mut gauge = |name: &str, help: &str, value: f64| {
        let gauge = Number::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    };
    let waiting = "Closed stretches that are not known to be in the lake as the store has them";
    gauge("waiting_stretches", waiting, lake.waiting as f64);
    if let Some(from_ms) = lake.waiting_from_ms {
        let help = "Start of the first stretch that waits for the lake, since 1970 UTC";
        gauge("waiting_from_seconds", help, from_ms as f64 / 1000.0);
    }
    let is_up = f64::from(u8::from(lake.trouble.is_none()));
    gauge("up", "0 while the lake fails to be written", is_up);
    let mut counter = |name: &str, help: &str, value: u64| {
        let counter: Counter = Counter::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    };
    counter("files", "Files of cells written", lake.files);
    counter("bytes", "Bytes of these files", lake.bytes);
    counter(
        "sealed",
        "Stretches of lanes listed in manifests, rewritten ones included",
        lake.sealed,
    );
    counter("rewritten", "Stretches of lanes that were listed before", lake.rewritten);
    counter("stale", "Times that another writer was faster", lake.stale);
    counter("deleted_files", "Files taken away that were not alive any more", lake.deleted);
    counter("delta_files", "Files of open stretches written", lake.delta_files);
    counter("delta_bytes", "Bytes of these files", lake.delta_bytes);
    let help = "Pieces of late and dead letters written";
    counter("letter_files", help, lake.letter_files);
    counter("letter_bytes", "Bytes of these pieces", lake.letter_bytes);
    counter("failures", "Times that the lake failed to be written", lake.failures);
}
