//! Symbols that all threads share, with a copy of what each thread has met in the thread.

use hashbrown::HashMap;
use marquee_model::RequestKey;
use marquee_pipeline::symbols::Symbols;
use std::sync::Mutex;

/// Used in no particular epoch: a backfill keeps its symbols until it ends.
pub(super) const FOR_EVER: i64 = i64::MAX;

/// The numbers that all threads agree on.
pub(super) struct SharedSymbols {
    symbols: Mutex<Symbols>,
    seed: u64,
    groupings: usize,
    /// Texts of request ids that are no UUIDs, where members are wanted.
    texts: Mutex<HashMap<RequestKey, Box<str>>>,
}

/// Symbols that do not change any more.
pub(super) struct Frozen {
    pub(super) symbols: Symbols,
    pub(super) texts: HashMap<RequestKey, Box<str>>,
}

impl SharedSymbols {
    pub(super) fn new(seed: u64, groupings: usize) -> Self {
        SharedSymbols {
            symbols: Mutex::new(Symbols::new(seed, groupings)),
            seed,
            groupings,
            texts: Mutex::default(),
        }
    }

    pub(super) fn into_inner(self) -> Frozen {
        Frozen {
            symbols: self.symbols.into_inner().unwrap_or_else(|e| e.into_inner()),
            texts: self.texts.into_inner().unwrap_or_else(|e| e.into_inner()),
        }
    }

    /// Remembers the text of a request id that cannot be written again from its key.
    pub(super) fn remember(&self, request: RequestKey, text: &str) {
        let mut texts = self.texts.lock().unwrap_or_else(|e| e.into_inner());
        texts.entry(request).or_insert_with(|| text.into());
    }

    /// One thread's view.
    pub(super) fn local(&self) -> LocalSymbols<'_> {
        LocalSymbols {
            shared: self,
            local: Symbols::new(self.seed, self.groupings),
            videos: Vec::new(),
            tuples: Vec::new(),
        }
    }
}

/// Numbers of one thread, and the shared number of each.
pub(super) struct LocalSymbols<'s> {
    shared: &'s SharedSymbols,
    local: Symbols,
    videos: Vec<u32>,
    tuples: Vec<u32>,
}

impl LocalSymbols<'_> {
    /// The shared number of a video.
    #[inline]
    pub(super) fn video(&mut self, text: &str) -> u32 {
        let local = self.local.videos.intern(text.as_bytes(), FOR_EVER) as usize;
        if local == self.videos.len() {
            let mut shared = self.shared.symbols.lock().unwrap_or_else(|e| e.into_inner());
            self.videos.push(shared.videos.intern(text.as_bytes(), FOR_EVER));
        }
        self.videos[local]
    }

    /// The shared number of a tuple that `make` makes in any symbols that it is given.
    #[inline]
    pub(super) fn tuple(&mut self, mut make: impl FnMut(&mut Symbols) -> u32) -> u32 {
        let local = make(&mut self.local) as usize;
        if local == self.tuples.len() {
            let mut shared = self.shared.symbols.lock().unwrap_or_else(|e| e.into_inner());
            self.tuples.push(make(&mut shared));
        }
        self.tuples[local]
    }
}
