//! Which crate may depend on which: a dependency that is not listed here is a decision to be made.

use super::Finding;
use crate::tree::{File, Tree};
use anyhow::{Context, Result};
use toml::{Table, Value};

/// For each crate the crates of this workspace that it may use. Crates that are not listed may use
/// all but [`ORACLE`].
const MAY_USE: [(&str, &[&str]); 10] = [
    ("marquee-model", &[]),
    ("marquee-expr", &[]),
    ("marquee-recommend", &[]),
    ("marquee-pipeline", &["marquee-model", "marquee-expr"]),
    ("marquee-sources", &["marquee-model", "marquee-expr", "marquee-pipeline"]),
    ("marquee-sinks", &["marquee-model", "marquee-expr", "marquee-pipeline"]),
    (
        "marquee-runtime",
        &["marquee-model", "marquee-expr", "marquee-pipeline", "marquee-sources", "marquee-sinks"],
    ),
    (
        "marquee-server",
        &[
            "marquee-model",
            "marquee-expr",
            "marquee-pipeline",
            "marquee-sources",
            "marquee-sinks",
            "marquee-runtime",
            "marquee-recommend",
        ],
    ),
    ("marquee-oracle", &[]),
    ("marquee-services", &[]),
];

/// It shares no code with what it judges, and nothing but tests uses it.
const ORACLE: &str = "marquee-oracle";

/// Crates that are tests as a whole.
const TESTS: [&str; 2] = ["marquee-e2e", "marquee-sim"];

/// What the pure crates must not even have at hand.
const PURE: [&str; 4] = ["marquee-model", "marquee-expr", "marquee-pipeline", "marquee-recommend"];
const IMPURE: [&str; 6] = ["tokio", "rand", "rand_chacha", "getrandom", "tempfile", "ureq"];

pub(super) fn check(tree: &Tree) -> Result<Vec<Finding>> {
    let is_manifest = |file: &&File| file.path.ends_with("/Cargo.toml");
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(is_manifest) {
        let manifest: Table = file.text.parse().with_context(|| file.path.clone())?;
        findings.extend(of_manifest(file, &manifest));
    }
    Ok(findings)
}

fn of_manifest(file: &File, manifest: &Table) -> Vec<Finding> {
    let package = manifest.get("package").and_then(|p| p.get("name")).and_then(Value::as_str);
    let package = package.unwrap_or_default();
    let used = dependencies(manifest, &["dependencies", "build-dependencies"]);
    let faults = used.into_iter().filter_map(|dependency| {
        let reason = refused(package, &dependency)?;
        Some(Finding::fault(file, 0, format!("{package} depends on {dependency}: {reason}")))
    });
    faults.collect()
}

fn refused(package: &str, dependency: &str) -> Option<String> {
    if PURE.contains(&package) && IMPURE.contains(&dependency) {
        return Some("it must stay pure".to_owned());
    }
    if !dependency.starts_with("marquee") {
        return None;
    }
    if dependency == ORACLE && !TESTS.contains(&package) {
        return Some("nothing but tests uses the oracle".to_owned());
    }
    let (_, may_use) = MAY_USE.iter().find(|(name, _)| *name == package)?;
    let allowed =
        if may_use.is_empty() { "none of this workspace".into() } else { may_use.join(", ") };
    (!may_use.contains(&dependency)).then(|| format!("it may use {allowed}"))
}

/// Names of all dependencies in sections of these names, also of single targets.
fn dependencies(table: &Table, sections: &[&str]) -> Vec<String> {
    let mut names = Vec::new();
    for section in sections {
        let entries = table.get(*section).and_then(Value::as_table).into_iter().flatten();
        names.extend(entries.map(|(key, value)| {
            // A dependency may be renamed.
            let package = value.get("package").and_then(Value::as_str);
            package.unwrap_or(key).to_owned()
        }));
    }
    let targets = table.get("target").and_then(Value::as_table).into_iter().flatten();
    let tables = targets.filter_map(|(_, target)| target.as_table());
    names.extend(tables.flat_map(|target| dependencies(target, sections)));
    names
}

#[cfg(test)]
mod tests {
    use super::super::shown;
    use super::*;

    fn of(package: &str, rest: &str) -> Vec<String> {
        let text = format!("[package]\nname = {package:?}\n{rest}");
        shown(&check(&Tree::of(&[("crates/x/Cargo.toml", &text)])).expect("it parses"))
    }

    #[test]
    fn dependencies_that_are_not_allowed_are_found_in_every_section() {
        for (package, rest) in [
            ("marquee-model", "[dependencies]\nmarquee-expr.workspace = true"),
            ("marquee-expr", "[dependencies]\nmarquee-model = { path = '../model' }"),
            ("marquee-pipeline", "[dependencies]\nmarquee-sources.workspace = true"),
            ("marquee-pipeline", "[dependencies]\ntokio.workspace = true"),
            ("marquee-sources", "[dependencies]\nmarquee-runtime.workspace = true"),
            ("marquee-sinks", "[build-dependencies]\nmarquee.workspace = true"),
            ("marquee-sinks", "[target.'cfg(unix)'.dependencies]\nmarquee-server.workspace = true"),
            ("marquee-server", "[dependencies]\nx = { package = 'marquee', path = '../marquee' }"),
            ("marquee", "[dependencies]\nmarquee-oracle.workspace = true"),
            ("marquee-oracle", "[dependencies]\nmarquee-model.workspace = true"),
            ("marquee-services", "[dependencies]\nmarquee.workspace = true"),
        ] {
            assert_eq!(of(package, rest).len(), 1, "{package}: {rest}");
        }
        assert_eq!(
            of("marquee-expr", "[dependencies]\nmarquee-model.workspace = true"),
            [
                "fault: crates/x/Cargo.toml: marquee-expr depends on marquee-model: it may use none of \
              this workspace"
            ]
        );
    }

    #[test]
    fn dependencies_of_tests_and_those_that_are_allowed_are_not() {
        for (package, rest) in [
            ("marquee-pipeline", "[dependencies]\nmarquee-model.workspace = true"),
            ("marquee-pipeline", "[dev-dependencies]\nmarquee-oracle.workspace = true"),
            ("marquee-e2e", "[dependencies]\nmarquee-oracle.workspace = true"),
            ("marquee-server", "[dependencies]\ntokio.workspace = true"),
            ("marquee", "[dependencies]\nmarquee-server.workspace = true"),
        ] {
            assert_eq!(of(package, rest), Vec::<String>::new(), "{package}: {rest}");
        }
    }
}
