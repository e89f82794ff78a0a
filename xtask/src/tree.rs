//! The files of the project, read once: what the checks of [`crate::tidy`] look at.

use anyhow::Result;
use std::path::Path;

/// All files that are in the project or would be added by `git add`.
pub(crate) struct Tree {
    pub(crate) files: Vec<File>,
}

/// One file.
pub(crate) struct File {
    /// Path from the root, with `/`.
    pub(crate) path: String,
    /// Empty for files that are no text.
    pub(crate) text: String,
}

impl Tree {
    /// Reads the files of a folder that git knows or would add.
    pub(crate) fn read(root: &Path) -> Result<Tree> {
        let mut git = std::process::Command::new("git");
        git.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let listed = crate::process::output_of(git.current_dir(root))?;
        let paths = listed.split('\0').filter(|path| !path.is_empty());
        // What was deleted is still listed until the commit.
        let paths = paths.filter(|path| root.join(path).is_file());
        let files = paths.map(|path| {
            let bytes = std::fs::read(root.join(path))?;
            Ok(File { path: path.to_owned(), text: String::from_utf8(bytes).unwrap_or_default() })
        });
        Ok(Tree { files: files.collect::<Result<_>>()? })
    }

    /// A tree for tests of checks.
    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Tree {
        let file = |(path, text): &(&str, &str)| File {
            path: (*path).to_owned(),
            text: (*text).to_owned(),
        };
        Tree { files: files.iter().map(file).collect() }
    }

    /// A file by its path.
    pub(crate) fn get(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Whether there is a file or a folder of this path.
    pub(crate) fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let inside = |file: &File| {
            let rest = file.path.strip_prefix(path);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        path.is_empty() || self.files.iter().any(inside)
    }

    /// All Rust files.
    pub(crate) fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }
}

impl File {
    /// The lines of a Rust file that are part of the program: without comments, and without the
    /// tests at its end. With their numbers, counted from 1.
    pub(crate) fn program_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        let lines = lines.take_while(|(_, line)| line.trim() != "#[cfg(test)]");
        lines.map(|(number, line)| (number, without_comment(line)))
    }

    /// Whether the whole file is a test.
    pub(crate) fn is_test(&self) -> bool {
        let is_test = |part: &str| matches!(part, "tests" | "tests.rs" | "benches" | "examples");
        self.path.split('/').any(is_test)
    }
}

fn without_comment(line: &str) -> &str {
    line.find("//").map_or(line, |start| &line[..start])
}
