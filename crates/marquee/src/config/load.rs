//! From a file to a checked configuration, or to everything that is wrong with it.

use super::walk::{Findings, Walk, cut};
use super::{Config, Fault, check, environment, read};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;
use toml::de::DeTable;

/// A longer file is no configuration; it is refused before it is parsed.
const MAX_FILE_BYTES: u64 = 1 << 20;

impl Config {
    /// Reads a file. Relative paths in it are relative to its folder.
    ///
    /// # Errors
    /// Everything that is wrong with the file, in the order of its lines; never an empty list.
    pub fn load(path: &Path) -> Result<Config, Vec<Fault>> {
        let (config, faults) = Config::load_with_faults(path)?;
        if faults.is_empty() { Ok(config) } else { Err(faults) }
    }

    /// Reads a file as far as it can be read: where there are faults, the configuration is only
    /// good for finding more of them.
    ///
    /// # Errors
    /// The file cannot be read, or is no TOML.
    pub fn load_with_faults(path: &Path) -> Result<(Config, Vec<Fault>), Vec<Fault>> {
        let file_name = path.display().to_string();
        let text = text_of(path).map_err(|fault| vec![fault])?;
        checked(&text, &file_name, path.parent().unwrap_or(Path::new("")))
    }

    /// Reads a text as if it stood in a file of that name in that folder.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, file_name: &str, base_dir: &Path) -> Result<Config, Vec<Fault>> {
        let (config, faults) = checked(text, file_name, base_dir)?;
        if faults.is_empty() { Ok(config) } else { Err(faults) }
    }
}

fn checked(
    text: &str,
    file_name: &str,
    base_dir: &Path,
) -> Result<(Config, Vec<Fault>), Vec<Fault>> {
    let (mut config, findings) = walk(text, file_name, base_dir).map_err(|fault| vec![*fault])?;
    let mut faults = findings.faults;
    faults.extend(environment::secrets(&mut config, |name| std::env::var(name).ok()));
    faults.extend(check::faults(&config, &faults));
    faults.sort_by_key(|fault| fault.line);
    Ok((config, faults))
}

/// Goes through a text; the result is only good where nothing was found wrong.
pub(super) fn walk(
    text: &str,
    file_name: &str,
    base_dir: &Path,
) -> Result<(Config, Findings), Box<Fault>> {
    let walk = Walk::new(file_name, text);
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => return Err(Box::new(syntax_fault(&walk, text, file_name, &error))),
    };
    let mut config = read::config(&walk.root(table.get_ref()), base_dir, file_name);
    let findings = walk.finish();
    config.origin.lines.clone_from(&findings.lines);
    Ok((config, findings))
}

fn syntax_fault(walk: &Walk, text: &str, file_name: &str, error: &toml::de::Error) -> Fault {
    let line = walk.line_at(error.span().map_or(0, |span| span.start));
    let content = text.lines().nth(line - 1).unwrap_or("");
    let hint = content
        .contains('\\')
        .then_some("in single quotes, as in 'a\\.b', a backslash needs no second one");
    let found = match content.trim() {
        "" => "no valid TOML".into(),
        content => format!("no valid TOML in `{}` ({})", cut(content), error.message()),
    };
    Fault {
        line,
        hint: hint.map(str::to_owned),
        ..file_fault(file_name, &found, "TOML", "within = \"1h\"")
    }
}

#[allow(clippy::result_large_err)] // once a process, and its caller wants the fault itself
fn text_of(path: &Path) -> Result<String, Fault> {
    let name = path.display().to_string();
    let refuse = |found: &str, hint: &str| {
        file_fault(&name, found, "a configuration in TOML", "").with_hint(hint)
    };
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    match read {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let hint = "name it with -c, or start from a copy of examples/reference.toml";
            return Err(refuse("no such file", hint));
        }
        Err(error) => return Err(refuse(&error.to_string(), "make it a file that can be read")),
        Ok(_) if bytes.len() as u64 > MAX_FILE_BYTES => {
            return Err(refuse("more than 1MiB", "is this the file that you meant?"));
        }
        Ok(_) => {}
    }
    String::from_utf8(bytes).map_err(|error| {
        let readable = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes()[..readable].iter().filter(|byte| **byte == b'\n').count();
        Fault { line, ..refuse("bytes that are no UTF-8", "save the file as UTF-8") }
    })
}

fn file_fault(file: &str, found: &str, expected: &str, example: &str) -> Fault {
    Fault {
        file: file.into(),
        line: 0,
        key: String::new(),
        found: found.into(),
        expected: expected.into(),
        example: example.into(),
        hint: None,
    }
}
