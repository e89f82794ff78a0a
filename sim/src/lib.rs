//! A simulation of whole histories: the real owners of lanes (`marquee-runtime`) and the real
//! pipeline against a simulated log, group, store, letters and clock, in one thread, with faults.
//!
//! A run is a function of its seed: [`script`] draws what happens, [`run`] lets it happen and judges
//! every write by the contract of docs/semantics.md and by `marquee-oracle`. Nothing here sleeps,
//! asks for the time, or touches a disk.

mod draw;
mod group;
mod judge;
mod machine;
mod script;
mod source;
mod store;
mod truth;
mod world;

pub use draw::script;
pub use judge::Fault;
pub use machine::{Outcome, run};
pub use script::{Action, Acks, Effect, Form, Mood, Point, Rec, Script, Setup};
