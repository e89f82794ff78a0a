//! What follows from the words of a dictionary alone, found once a word.

use marquee_sources::json::Words;

/// Answers to one question about words, while their dictionary stays the same.
pub(super) struct Memo<T> {
    /// Those of the rows at hand, if they have a dictionary.
    words: Option<Words>,
    /// By the place of the word.
    answers: Vec<Option<T>>,
}

impl<T: Copy> Memo<T> {
    pub(super) fn new() -> Self {
        Memo { words: None, answers: Vec::new() }
    }

    /// Turns to other rows, of which `None` has no dictionary.
    pub(super) fn turn_to(&mut self, words: Option<&Words>) {
        let is_same = match (&self.words, words) {
            (Some(old), Some(new)) => old.share_dictionary(new),
            _ => false,
        };
        if !is_same {
            self.answers.clear();
            self.answers.resize(words.map_or(0, Words::count), None);
        }
        self.words = words.cloned();
    }

    /// The answer for the word of a row, which `find` gives where it is not known. An event that
    /// is no row has no word.
    #[inline]
    pub(super) fn of(&mut self, row: Option<usize>, find: impl FnOnce() -> T) -> T {
        let place = self.words.as_ref().zip(row).and_then(|(words, row)| words.place(row));
        match place {
            Some(place) => *self.answers[place].get_or_insert_with(find),
            None => find(),
        }
    }
}
