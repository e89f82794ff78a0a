//! How memory comes from the system: in pages of the usual size.

/// Asks for no huge pages in this process. The allocator would take them (2 MiB on x86-64), and every
/// block that it keeps for one size of value and one thread becomes resident as a whole: a fifth more
/// memory for the same state, and nothing gained (docs/performance.md). Where the system does not know
/// the question, nothing changes.
pub fn stay_small() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!("huge pages cannot be switched off for this process: {error}");
    }
}
