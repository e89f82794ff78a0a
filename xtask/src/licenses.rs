//! Licenses, sources and bans of all dependencies, by deny.toml: a small stand-in for `cargo deny`,
//! which takes minutes to build and is not on every machine.

use crate::process::{cargo, output_of, root};
use crate::report::Outcome;
use anyhow::{Context, Result};
use serde_json::Value;
use std::process::Command;
use toml::Table;

/// Checks every package that this platform builds.
pub(crate) fn run() -> Result<Outcome> {
    let rules = Rules::parse(&std::fs::read_to_string(root().join("deny.toml"))?)?;
    let arguments = ["metadata", "--format-version", "1", "--filter-platform", &platform()?];
    let metadata: Value = serde_json::from_str(&output_of(&mut cargo(&arguments))?)?;
    let packages = metadata["packages"].as_array().context("cargo metadata without packages")?;
    let faults: Vec<String> = packages.iter().flat_map(|package| rules.faults(package)).collect();
    faults.iter().for_each(|fault| println!("fault: {fault}"));
    println!("licenses: {} packages, {} faults", packages.len(), faults.len());
    Ok(if faults.is_empty() { Outcome::Passed } else { Outcome::Failed })
}

fn platform() -> Result<String> {
    let version = output_of(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not name its host")?.to_owned())
}

/// What deny.toml allows.
struct Rules {
    licenses: Vec<String>,
    registries: Vec<String>,
    banned: Vec<String>,
}

impl Rules {
    fn parse(text: &str) -> Result<Rules> {
        let deny: Table = text.parse()?;
        let list = |section: &str, key: &str| {
            let list = deny.get(section).and_then(|section| section.get(key));
            list.and_then(toml::Value::as_array).cloned().unwrap_or_default()
        };
        let texts = |values: Vec<toml::Value>| -> Vec<String> {
            let text = |value: &toml::Value| {
                value.as_str().or_else(|| value.get("crate")?.as_str()).map(str::to_owned)
            };
            values.iter().filter_map(text).collect()
        };
        Ok(Rules {
            licenses: texts(list("licenses", "allow")),
            registries: texts(list("sources", "allow-registry")),
            banned: texts(list("bans", "deny")),
        })
    }

    fn faults(&self, package: &Value) -> Vec<String> {
        let name = package["name"].as_str().unwrap_or_default();
        let mut faults = Vec::new();
        if self.banned.iter().any(|banned| banned == name) {
            faults.push(format!("{name} is banned by deny.toml"));
        }
        let license = package["license"].as_str().unwrap_or("none");
        if !self.allows(license) {
            faults.push(format!("{name}: deny.toml does not allow the license {license}"));
        }
        // Crates of the workspace have no source.
        let source =
            package["source"].as_str().map(|source| source.trim_start_matches("registry+"));
        if source.is_some_and(|source| !self.registries.iter().any(|r| r == source)) {
            faults.push(format!("{name} comes from {}", source.unwrap_or_default()));
        }
        faults
    }

    /// Whether an SPDX expression can be met by allowed licenses alone.
    fn allows(&self, expression: &str) -> bool {
        let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut rest = words.as_slice();
        self.any(&mut rest) && rest.is_empty()
    }

    fn any(&self, rest: &mut &[&str]) -> bool {
        let mut met = self.all(rest);
        while take(rest, "OR") {
            met |= self.all(rest);
        }
        met
    }

    fn all(&self, rest: &mut &[&str]) -> bool {
        let mut met = self.one(rest);
        while take(rest, "AND") {
            met &= self.one(rest);
        }
        met
    }

    fn one(&self, rest: &mut &[&str]) -> bool {
        if take(rest, "(") {
            let met = self.any(rest);
            return take(rest, ")") && met;
        }
        let Some((license, others)) = rest.split_first() else { return false };
        *rest = others;
        let mut name = (*license).to_owned();
        if take(rest, "WITH")
            && let Some((exception, others)) = rest.split_first()
        {
            *rest = others;
            name = format!("{name} WITH {exception}");
        }
        self.licenses.contains(&name)
    }
}

fn take(rest: &mut &[&str], word: &str) -> bool {
    let is_next = rest.first() == Some(&word);
    if is_next {
        *rest = &rest[1..];
    }
    is_next
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules() -> Rules {
        let text = "[licenses]\nallow = ['MIT', 'Apache-2.0', 'Zlib']\n\
                    [bans]\ndeny = [{ crate = 'openssl' }]\n\
                    [sources]\nallow-registry = ['https://index']";
        Rules::parse(text).expect("it parses")
    }

    #[test]
    fn expressions_are_met_by_allowed_licenses_alone() {
        for (expression, allowed) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("GPL-3.0 OR MIT", true),
            ("MIT/GPL-3.0", true),
            ("MIT AND GPL-3.0", false),
            ("(MIT OR GPL-3.0) AND Zlib", true),
            ("MIT OR GPL-3.0 AND BSD-3-Clause", true),
            ("(MIT OR Zlib) AND GPL-3.0", false),
            ("Apache-2.0 WITH LLVM-exception", false),
            ("Apache-2.0 WITH LLVM-exception OR MIT", true),
            ("", false),
            ("(MIT", false),
            ("MIT MIT", false),
        ] {
            assert_eq!(rules().allows(expression), allowed, "{expression}");
        }
    }

    #[test]
    fn bans_sources_and_missing_licenses_are_found() {
        let of = |package| rules().faults(&package);
        assert!(of(json!({"name": "x", "license": "MIT", "source": null})).is_empty());
        assert!(
            of(json!({"name": "x", "license": "MIT", "source": "registry+https://index"}))
                .is_empty()
        );
        assert_eq!(of(json!({"name": "openssl", "license": "MIT"})).len(), 1);
        assert_eq!(of(json!({"name": "x", "license": null})).len(), 1);
        assert_eq!(of(json!({"name": "x", "license": "MIT", "source": "git+https://y"})).len(), 1);
    }
}
