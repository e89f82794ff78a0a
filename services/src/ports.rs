//! Ports of loopback: which are free.

use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::sync::{Mutex, PoisonError};

/// Below what Linux and macOS give to outgoing connections (from 32768 or 49152), and above the fixed
/// ports of [`crate::background`]. A broker that was killed must find its port again: out of the
/// range of outgoing connections a client that tries to reach it could be given that very port, and
/// would even reach itself.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// Ports that this process has given out: who asked for one may not have used it yet, or has stopped
/// its server only to start it again.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port of loopback that nobody listens on now. The same process never gets it again.
///
/// # Panics
///
/// If there is none.
pub fn free_port() -> u16 {
    // Random, so that test processes that start at the same time do not take the same.
    let random = RandomState::new().hash_one(std::process::id());
    let count = u64::from(RANGE.end - RANGE.start);
    let ports = (0..count).map(|step| {
        let offset = u16::try_from((random % count + step) % count);
        RANGE.start + offset.expect("it is smaller than the count of a range of u16")
    });
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut is_free = |port: &u16| bind(*port).is_ok() && given.insert(*port);
    ports.into_iter().find(|port| is_free(port)).expect("one of thousands of ports is free")
}

/// An error that names the port of 127.0.0.1, if somebody listens on it.
pub(crate) fn ensure_free(service: &str, port: u16) -> Result<()> {
    ensure_free_at(service, local(port))
}

/// The same of any address of loopback.
pub(crate) fn ensure_free_at(service: &str, address: SocketAddrV4) -> Result<()> {
    TcpListener::bind(address).map(drop).with_context(|| {
        format!("{service} cannot listen on {address}: end what uses that port, and try again")
    })
}

/// The port of 127.0.0.1.
pub(crate) fn local(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
}

fn bind(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind(local(port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_and_is_not_given_out() {
        let port = free_port();
        ensure_free("kafka", port).expect("it is free");
        let _taken = bind(port).expect("it is free");
        let error = ensure_free("kafka", port).expect_err("it is taken");
        assert!(format!("{error:#}").contains(&format!("127.0.0.1:{port}: end what")), "{error:#}");
        let others: BTreeSet<u16> = (0..100).map(|_| free_port()).collect();
        assert_eq!(others.len(), 100);
        assert!(!others.contains(&port) && others.iter().all(|other| RANGE.contains(other)));
    }
}
