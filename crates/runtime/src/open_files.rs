//! How many files this process may have open: state and buffered events that go to disk keep a file
//! each, the log and the store keep their own, and each connection is one.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;

/// Raises this process's limit of open files as far as it may by itself, to the hard limit. The soft
/// one, often 1,024, is for programs that use `select`, which nothing here does. Where the system
/// refuses, the limit stays as it is.
pub fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    let words = |files: Option<u64>| files.map_or("any number".to_owned(), |n| n.to_string());
    let (was, is) = (words(current), words(maximum));
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => tracing::debug!("this process may have {is} open files; it was {was}"),
        Err(error) => tracing::warn!("this process may have {was} open files, not {is}: {error}"),
    }
}

/// What the operator can do when a file that bounds memory cannot be written; `otherwise` where it is
/// not for the number of files that are open.
pub(crate) fn advice(error: &io::Error, otherwise: &'static str) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE) => {
            "this process has all the files open that it may have: raise its hard limit (ulimit -Hn, \
             or LimitNOFILE of systemd) and start it again, or raise [runtime] memory"
        }
        Some(Errno::NFILE) => {
            "this machine has all the files open that it may have: raise its limit (fs.file-max), or \
             end what has so many open"
        }
        _ => otherwise,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_is_about_what_is_short() {
        let of = |errno: Errno| advice(&errno.into(), "free space there");
        assert!(of(Errno::MFILE).contains("ulimit -Hn"));
        assert!(of(Errno::NFILE).contains("fs.file-max"));
        assert_eq!(of(Errno::NOSPC), "free space there");
    }
}
