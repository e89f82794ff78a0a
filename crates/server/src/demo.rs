//! What the buttons of `marquee demo` do. The page that has them is the operator's; who does it is
//! whoever started the server.

use marquee_model::Kind;

/// The demo's world, and its switches. Each call returns at once; what it brings shows in the numbers.
pub trait Demo: Send + Sync {
    /// Something happens in the world: for two minutes members are shown a video, and choose it, far
    /// more often than before.
    fn event(&self, video: &str);

    /// Stops or starts the simulated members' events of one kind.
    fn source(&self, kind: Kind, stopped: bool);

    /// Kills this process, as nothing else than a power cut would. It is started again.
    fn crash(&self);
}
