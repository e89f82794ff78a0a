//! What the lake needs of an object store: five calls that block. Everything else here is written
//! against them, so that tests can stand in for the place and break it.

use bytes::Bytes;
use std::sync::Arc;
use thiserror::Error;
use tokio::sync::watch;

/// A place for objects: each is written as a whole, once, and is seen by all as soon as it is there.
pub trait Objects: Send + Sync {
    /// Makes an object, unless there is one of that name: of several who try, one makes it.
    /// Durable on return. After an error it may be there all the same.
    fn put_new(&self, path: &str, bytes: Bytes) -> Result<Put, ObjectError>;

    /// The bytes of an object; `None` where there is none.
    fn get(&self, path: &str) -> Result<Option<Bytes>, ObjectError>;

    /// All objects in a folder and below it.
    fn list(&self, folder: &str) -> Result<Vec<Listed>, ObjectError>;

    /// Removes an object, if it is there.
    fn delete(&self, path: &str) -> Result<(), ObjectError>;
}

/// What became of [`Objects::put_new`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is there, by this call.
    Made,
    /// There was one before, which was left as it is.
    WasThere,
}

/// An object in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its path.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// When it was made, milliseconds since 1970 UTC, by the clock of the place.
    pub modified_ms: i64,
}

/// A call that failed, or was not waited for.
#[derive(Debug, Error)]
pub enum ObjectError {
    /// The place does not answer, or refuses.
    #[error("the lake failed to {call} {path}: {error}")]
    Failed {
        /// What it was asked for.
        call: &'static str,
        /// Path within the lake.
        path: String,
        /// What it, or the network, says.
        error: String,
    },
    /// The process ends.
    #[error("the lake was not waited for: the process ends")]
    Stopped,
}

/// Ends whatever waits for the lake; can be sent to other threads.
#[derive(Clone, Debug)]
pub struct Stop(Arc<watch::Sender<bool>>);

impl Default for Stop {
    fn default() -> Self {
        Stop(Arc::new(watch::Sender::new(false)))
    }
}

impl Stop {
    /// From now on no call is waited for.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    /// Whether somebody asked for that.
    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// An error when somebody has.
    pub(super) fn go_on(&self) -> Result<(), ObjectError> {
        if self.is_set() { Err(ObjectError::Stopped) } else { Ok(()) }
    }

    /// Waits until somebody does.
    pub(super) async fn wait(&self) {
        // An error would mean that the sender is gone, which is held here.
        let _ = self.0.subscribe().wait_for(|stop| *stop).await;
    }
}
