//! Paths that documents cite exist: those in backticks, and those that links lead to.

use super::Finding;
use crate::tree::{File, Tree};

/// Names that end so are files of a source tree; other words with a slash may be anything.
const SOURCES: [&str; 10] =
    [".rs", ".md", ".toml", ".sql", ".py", ".sh", ".html", ".js", ".css", ".yml"];

/// First folders of paths that are made on the user's machine.
const MADE: [&str; 3] = ["target", "data", "data-slides"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.files.iter().filter(|file| is_document(&file.path)).flat_map(|f| faults(tree, f)).collect()
}

fn is_document(path: &str) -> bool {
    let in_docs = path.starts_with("docs/") || !path.contains('/');
    in_docs && path.ends_with(".md")
}

fn faults(tree: &Tree, document: &File) -> Vec<Finding> {
    let folder = document.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut found = Vec::new();
    let mut in_code = false;
    for (index, line) in document.text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        let cited = quoted_paths(tree, line).filter(|path| {
            let path = path.trim_start_matches("./");
            !tree.has(path) && !exists_from(tree, folder, path)
        });
        let linked = links(line).filter(|path| !exists_from(tree, folder, path));
        found.extend(cited.chain(linked).map(|path| {
            Finding::fault(document, index + 1, format!("cites {path}, which does not exist"))
        }));
    }
    found
}

/// Words in backticks that look like paths of this project.
fn quoted_paths<'a>(tree: &'a Tree, line: &'a str) -> impl Iterator<Item = &'a str> {
    let quoted = line.split('`').skip(1).step_by(2);
    quoted.map(|word| word.split(':').next().unwrap_or(word)).filter(|word| is_path(tree, word))
}

fn is_path(tree: &Tree, word: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let Some((first, rest)) = word.split_once('/') else { return false };
    if first.is_empty() || MADE.contains(&first) || !word.chars().all(is_plain) {
        return false;
    }
    // `crates/` alone is a folder; `and/or` is not, unless there is a folder `and`.
    SOURCES.iter().any(|end| word.ends_with(end)) || tree.has(first) || rest.is_empty()
}

/// Targets of links, without anchors, that are not on the web.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let local = targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"));
    local.filter_map(|target| target.split('#').next()).filter(|target| !target.is_empty())
}

/// Whether a path exists as seen from a folder.
fn exists_from(tree: &Tree, folder: &str, path: &str) -> bool {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            // Above the root nothing belongs to the project.
            ".." if parts.pop().is_none() => return false,
            ".." => {}
            part => parts.push(part),
        }
    }
    tree.has(&parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;

    fn of(path: &str, text: &str) -> Vec<String> {
        let tree = Tree::of(&[
            (path, text),
            ("crates/model/src/lib.rs", ""),
            ("examples/reference.toml", ""),
            ("docs/semantics.md", ""),
        ]);
        shown(&check(&tree))
    }

    #[test]
    fn cited_paths_that_do_not_exist_are_found() {
        assert_eq!(
            of("docs/a.md", "fine\n`crates/modell/` and `examples/x.toml`\n[x](gone.md#part)\n"),
            [
                "fault: docs/a.md:2: cites crates/modell/, which does not exist",
                "fault: docs/a.md:2: cites examples/x.toml, which does not exist",
                "fault: docs/a.md:3: cites gone.md, which does not exist",
            ]
        );
        assert_eq!(of("README.md", "`../other/README.md`").len(), 1, "outside of the project");
        assert_eq!(of("ARCHITECTURE.md", "`sim/`").len(), 1, "a folder that is not there");
    }

    #[test]
    fn paths_that_exist_and_words_that_are_no_paths_are_not() {
        let text = "`crates/model/src/lib.rs` `crates/model/` `examples/reference.toml:12` \
                    [a](semantics.md#words) [b](../examples/reference.toml) [c](https://x.org/y.md) \
                    [d](#here) `application/json` `/v1/trends` `data/log` `target/x.md` `a / b.md` \
                    `DIR/impressions.ndjson`\n```\n`crates/not/checked.rs`\n```\n";
        assert_eq!(of("docs/a.md", text), Vec::<String>::new());
        assert_eq!(of("e2e/notes.md", "`crates/gone.rs`"), Vec::<String>::new(), "no document");
    }
}
