//! What follows from the words of a dictionary alone, found once a word.

use marquee_sources::json::Words;

/// Answers to one question about words, while their dictionary stays the same.
pub(super) struct Memo<T> {
    /// Those of the rows at hand, if they have a dictionary.
    words: Option<Words>,
    /// By the place of the word, and which of them are known: side by side they would take up to
    /// twice the cache.
    answers: Vec<T>,
    is_known: Vec<bool>,
}

impl<T: Copy + Default> Memo<T> {
    pub(super) fn new() -> Self {
        Memo { words: None, answers: Vec::new(), is_known: Vec::new() }
    }

    /// Turns to other rows, of which `None` has no dictionary.
    pub(super) fn turn_to(&mut self, words: Option<&Words>) {
        let is_same = match (&self.words, words) {
            (Some(old), Some(new)) => old.share_dictionary(new),
            _ => false,
        };
        if !is_same {
            let count = words.map_or(0, Words::count);
            self.answers.resize(count, T::default());
            self.is_known.clear();
            self.is_known.resize(count, false);
        }
        self.words = words.cloned();
    }

    /// The answer for the word of a row, which `find` gives where it is not known. An event that
    /// is no row has no word.
    #[inline]
    pub(super) fn of(&mut self, row: Option<usize>, find: impl FnOnce() -> T) -> T {
        let place = self.words.as_ref().zip(row).and_then(|(words, row)| words.place(row));
        let Some(place) = place else { return find() };
        if !self.is_known[place] {
            (self.answers[place], self.is_known[place]) = (find(), true);
        }
        self.answers[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use marquee_model::{CellCounts, CellKey, Kind};
    use marquee_sources::files::{Chunk, FileSet};
    use marquee_sources::json::{Decoder, Mapping, TimeUnit};
    use std::path::Path;

    fn decoder() -> Decoder {
        let path = |name: &str| vec![name.to_owned()];
        Decoder::new(Mapping {
            record_filter: None,
            explode: None,
            request_id: path("slice"),
            video: path("video_id"),
            time: path("epoch_start_ms"),
            time_unit: TimeUnit::Milliseconds,
            attributes: Vec::new(),
        })
    }

    /// A file of 20,000 rows, of which each hundred have a video of their own: cells, since these
    /// are what this program writes as Parquet.
    fn write(path: &Path, video: impl Fn(i64) -> String) {
        let cell = |row: i64| CellKey {
            video: video(row / 100),
            slice: String::new(),
            epoch_ms: 1,
            epoch_start_ms: row,
        };
        let rows: Vec<_> = (0..20_000).map(|row| (cell(row), CellCounts::default())).collect();
        marquee_sinks::cells::write_file(path, &rows, false).expect("there is room");
    }

    #[test]
    fn each_word_of_a_file_is_asked_for_once_and_never_taken_for_that_of_another_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let decoder = decoder();
        let mut memo = Memo::new();
        for letter in ["a", "b"] {
            let path = folder.path().join("cells.parquet");
            write(&path, |number| format!("{letter}{number:03}"));
            let files = FileSet::open_columns(&[(Kind::Play, path)], &|_| decoder.columns());
            let (files, mut chunk) = (files.expect("it opens"), Chunk::default());
            let (mut asked, mut next) = (0, 0_usize);
            assert!(files.next_chunk(0, &mut chunk).expect("it reads"));
            let mut group = chunk.rows.take().expect("rows, not lines");
            while let Some(rows) = group.next_rows().expect("it reads") {
                let columns = decoder.find_columns(&rows.columns);
                memo.turn_to(columns.videos());
                for row in 0..rows.len() {
                    let answer = (letter, next / 100);
                    let find = || {
                        asked += 1;
                        answer
                    };
                    assert_eq!(memo.of(Some(row), find), answer);
                    next += 1;
                }
            }
            assert_eq!((asked, next), (200, 20_000));
        }
    }

    #[test]
    fn an_event_without_a_word_is_always_asked_for() {
        let mut memo = Memo::new();
        memo.turn_to(None);
        assert_eq!(
            [memo.of(Some(0), || 1), memo.of(Some(0), || 2), memo.of(None, || 3)],
            [1, 2, 3]
        );
    }
}
