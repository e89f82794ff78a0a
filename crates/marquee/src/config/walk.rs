//! The walker: goes through a parsed TOML file by asking for the keys that it knows.
//!
//! Asking for a key is what makes it known: a key that nobody asked for is an unknown one, and the
//! list of all keys, which the docs are tested against, is what was asked for. Whatever is wrong is
//! noted as a fault and the walk goes on with the default, so that one walk finds every fault.

use super::fault::{Fault, nearest};
use super::value::{format_size, parse_size};
use marquee_model::{format_duration_ms, parse_duration_ms};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What one walk has found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Everything that is wrong, in the order of the file.
    pub(super) faults: Vec<Fault>,
    /// The line of each key that the file has.
    pub(super) lines: BTreeMap<String, usize>,
    /// Every key that was asked for, `join.within`.
    pub(super) known: BTreeSet<String>,
    unknown: Vec<(String, Fault)>,
}

/// One walk through one file.
pub(super) struct Walk {
    file: String,
    line_starts: Vec<usize>,
    findings: RefCell<Findings>,
}

impl Walk {
    pub(super) fn new(file: &str, text: &str) -> Walk {
        let after_newlines = text.match_indices('\n').map(|(place, _)| place + 1);
        Walk {
            file: file.into(),
            line_starts: std::iter::once(0).chain(after_newlines).collect(),
            findings: RefCell::default(),
        }
    }

    /// The whole file as a section without a name.
    pub(super) fn root<'w>(&'w self, table: &'w DeTable<'w>) -> Section<'w> {
        Section::new(self, "", Some(table))
    }

    /// The line, counted from 1, of a byte of the text.
    pub(super) fn line_at(&self, place: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= place)
    }

    /// Ends the walk.
    pub(super) fn finish(self) -> Findings {
        let mut findings = self.findings.into_inner();
        for (name, fault) in std::mem::take(&mut findings.unknown) {
            let fault = match (&fault.hint, owners_of(&name, &findings.known)) {
                (None, Some(owners)) => fault.with_hint(format!("`{name}` belongs in {owners}")),
                _ => fault,
            };
            findings.faults.push(fault);
        }
        findings.faults.sort_by_key(|fault| fault.line);
        findings
    }

    fn note(&self, fault: Fault) {
        self.findings.borrow_mut().faults.push(fault);
    }
}

/// The sections that know a key of this name: `[impressions] or [plays]`.
fn owners_of(name: &str, known: &BTreeSet<String>) -> Option<String> {
    let owners: Vec<String> = known
        .iter()
        .filter_map(|key| key.rsplit_once('.'))
        .filter(|(_, last)| *last == name)
        .map(|(section, _)| format!("[{section}]"))
        .collect();
    (!owners.is_empty()).then(|| owners.join(" or "))
}

/// A table of the file, or the place where it would be.
pub(super) struct Section<'w> {
    walk: &'w Walk,
    name: String,
    table: Option<&'w DeTable<'w>>,
    asked: RefCell<Vec<&'static str>>,
}

impl<'w> Section<'w> {
    fn new(walk: &'w Walk, name: &str, table: Option<&'w DeTable<'w>>) -> Section<'w> {
        Section { walk, name: name.into(), table, asked: RefCell::default() }
    }

    fn path_of(&self, key: &str) -> String {
        if self.name.is_empty() { key.into() } else { format!("{}.{key}", self.name) }
    }

    /// Asks for a key.
    pub(super) fn item(&self, key: &'static str) -> Option<Item<'w>> {
        self.asked.borrow_mut().push(key);
        self.walk.findings.borrow_mut().known.insert(self.path_of(key));
        let (found, value) = self.table?.get_key_value(key)?;
        Some(self.item_of(found, value))
    }

    /// All items of a table whose keys are the user's own.
    pub(super) fn items(&self) -> Vec<Item<'w>> {
        let table = self.table.into_iter().flatten();
        table.map(|(key, value)| self.item_of(key, value)).collect()
    }

    fn item_of<S: AsRef<str>>(
        &self,
        key: &Spanned<S>,
        value: &'w Spanned<DeValue<'w>>,
    ) -> Item<'w> {
        let name = key.get_ref().as_ref();
        let path = self.path_of(name);
        let line = self.walk.line_at(key.span().start);
        self.walk.findings.borrow_mut().lines.insert(path.clone(), line);
        Item { walk: self.walk, name: name.into(), path, line, value: value.get_ref() }
    }

    /// Reads a section below this one, and then refuses its keys that were not asked for.
    pub(super) fn section<T>(&self, key: &'static str, read: impl FnOnce(&Section<'w>) -> T) -> T {
        let table = self.item(key).and_then(|item| item.table(&format!("[{key}]")));
        let section = Section::new(self.walk, &self.path_of(key), table);
        let value = read(&section);
        section.refuse_unknown();
        value
    }

    /// Notes a fault for every key that was not asked for.
    pub(super) fn refuse_unknown(&self) {
        let asked = self.asked.borrow();
        let listed = match self.name.as_str() {
            "" => asked.iter().map(|key| format!("[{key}]")).collect::<Vec<_>>().join(", "),
            _ => asked.join(", "),
        };
        for item in self.items().into_iter().filter(|item| !asked.contains(&item.name.as_str())) {
            let mut fault = item.fault(format!("one of {listed}"), "");
            let is_section = self.name.is_empty() && item.value.is_table();
            fault.found = format!("an unknown {}", if is_section { "section" } else { "key" });
            fault.hint = nearest(&item.name, asked.iter().copied())
                .map(|near| format!("did you mean `{near}`?"));
            self.walk.findings.borrow_mut().unknown.push((item.name, fault));
        }
    }

    /// A whole number.
    pub(super) fn integer(
        &self,
        key: &'static str,
        default: u32,
        range: RangeInclusive<u32>,
    ) -> u32 {
        self.item(key).and_then(|item| item.integer(default, range)).unwrap_or(default)
    }

    /// A duration in milliseconds.
    pub(super) fn duration(
        &self,
        key: &'static str,
        default_ms: i64,
        range: RangeInclusive<i64>,
    ) -> i64 {
        self.item(key).and_then(|item| item.duration(default_ms, range)).unwrap_or(default_ms)
    }

    /// A share of a whole, in millionths.
    pub(super) fn share(&self, key: &'static str, default_ppm: u32) -> u32 {
        self.item(key).and_then(|item| item.share(default_ppm)).unwrap_or(default_ppm)
    }

    /// A size in bytes.
    pub(super) fn size(&self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        self.item(key).and_then(|item| item.size(default, range)).unwrap_or(default)
    }

    /// One of some words.
    pub(super) fn choice<T: Copy + PartialEq>(
        &self,
        key: &'static str,
        default: T,
        names: &[(&'static str, T)],
    ) -> T {
        self.item(key).and_then(|item| item.choice(names)).unwrap_or(default)
    }

    /// A text that is parsed; `None` from `parse` is a fault.
    pub(super) fn parsed<T>(
        &self,
        key: &'static str,
        expected: &str,
        example: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        self.item(key)?.parsed(expected, example, parse)
    }
}

/// One key with its value.
#[derive(Clone)]
pub(super) struct Item<'w> {
    walk: &'w Walk,
    /// The key alone, `within`.
    pub(super) name: String,
    /// The key in full, `join.within`.
    pub(super) path: String,
    /// Its line, counted from 1.
    pub(super) line: usize,
    value: &'w DeValue<'w>,
}

impl<'w> Item<'w> {
    fn fault(&self, expected: impl Into<String>, example: impl Into<String>) -> Fault {
        Fault {
            file: self.walk.file.clone(),
            line: self.line,
            key: cut(&self.path),
            found: found(self.value),
            expected: expected.into(),
            example: example.into(),
            hint: None,
        }
    }

    /// Notes that the value is wrong.
    pub(super) fn refuse<T>(&self, expected: &str, example: &str, hint: Option<&str>) -> Option<T> {
        let fault = self.fault(expected, example);
        self.walk.note(match hint {
            Some(hint) => fault.with_hint(hint),
            None => fault,
        });
        None
    }

    /// Notes that something about the key is wrong that its value alone does not show.
    pub(super) fn refuse_found<T>(&self, found: &str, expected: &str, example: &str) -> Option<T> {
        self.walk.note(Fault { found: found.into(), ..self.fault(expected, example) });
        None
    }

    /// The text, without a fault where it is something else.
    pub(super) fn as_text(&self) -> Option<&'w str> {
        self.value.as_str()
    }

    /// The table; a fault where it is something else.
    pub(super) fn table(&self, example: &str) -> Option<&'w DeTable<'w>> {
        self.value.as_table().or_else(|| self.refuse("a table", example, None))
    }

    /// The table as a section; `None` where it is something else, without a fault.
    pub(super) fn as_section(&self) -> Option<Section<'w>> {
        Some(Section::new(self.walk, &self.path, Some(self.value.as_table()?)))
    }

    /// The elements of a list; a fault where it is something else.
    pub(super) fn list(&self, expected: &str, example: &str) -> Option<Vec<Item<'w>>> {
        let Some(array) = self.value.as_array() else {
            return self.refuse(expected, example, None);
        };
        let element = |value: &'w Spanned<DeValue<'w>>| Item {
            line: self.walk.line_at(value.span().start),
            value: value.get_ref(),
            ..self.clone()
        };
        Some(array.iter().map(element).collect())
    }

    /// True or false.
    /// Its value, if it is true or false.
    pub(super) fn as_bool(&self) -> Option<bool> {
        self.value.as_bool()
    }

    pub(super) fn boolean(&self, example: bool) -> Option<bool> {
        let example = example.to_string();
        self.value.as_bool().or_else(|| self.refuse("true or false", &example, None))
    }

    /// A text that is parsed; `None` from `parse` is a fault.
    pub(super) fn parsed<T>(
        &self,
        expected: &str,
        example: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        self.value.as_str().and_then(parse).or_else(|| self.refuse(expected, example, None))
    }

    /// One of some words.
    pub(super) fn choice<T: Copy>(&self, names: &[(&'static str, T)]) -> Option<T> {
        let text = self.value.as_str();
        if let Some((_, value)) = names.iter().find(|(name, _)| Some(*name) == text) {
            return Some(*value);
        }
        let words: Vec<String> = names.iter().map(|(name, _)| format!("{name:?}")).collect();
        let near = nearest(text.unwrap_or(""), names.iter().map(|(name, _)| *name));
        let hint = near.map(|near| format!("did you mean {near:?}?"));
        self.refuse(&words.join(" or "), "", hint.as_deref())
    }

    /// A whole number.
    pub(super) fn integer(&self, example: u32, range: RangeInclusive<u32>) -> Option<u32> {
        let number = self.whole().and_then(|number| u32::try_from(number).ok());
        number.filter(|number| range.contains(number)).or_else(|| {
            let expected = format!("a whole number of {} to {}", range.start(), range.end());
            self.refuse(&expected, &example.to_string(), None)
        })
    }

    /// A duration in milliseconds.
    pub(super) fn duration(&self, example_ms: i64, range: RangeInclusive<i64>) -> Option<i64> {
        let example = format!("\"{}\"", format_duration_ms(example_ms));
        let Some(ms) = self.value.as_str().and_then(|text| parse_duration_ms(text).ok()) else {
            let unit = "a duration has a unit: ms, s, m, h or d";
            let hint = self.whole().map(|_| unit);
            return self.refuse("a duration", &example, hint);
        };
        if range.contains(&ms) {
            return Some(ms);
        }
        let write = |ms: &i64| format_duration_ms(*ms);
        let expected = format!("a duration of {} to {}", write(range.start()), write(range.end()));
        self.refuse(&expected, &example, None)
    }

    /// A size in bytes.
    pub(super) fn size(&self, example: u64, range: RangeInclusive<u64>) -> Option<u64> {
        let bytes = match self.value.as_str() {
            Some(text) => parse_size(text),
            None => self.whole().and_then(|number| u64::try_from(number).ok()),
        };
        let example = format!("\"{}\"", format_size(example));
        match bytes {
            None => self.refuse("a size in B, KiB, MiB, GiB or TiB", &example, None),
            Some(bytes) if range.contains(&bytes) => Some(bytes),
            Some(_) => {
                let write = |bytes: &u64| format_size(*bytes);
                let expected =
                    format!("a size of {} to {}", write(range.start()), write(range.end()));
                self.refuse(&expected, &example, None)
            }
        }
    }

    /// A share of a whole, above 0 and up to 1, in millionths.
    pub(super) fn share(&self, example_ppm: u32) -> Option<u32> {
        let number = self.value.as_float().and_then(|float| float.as_str().parse::<f64>().ok());
        let number = number.or_else(|| self.whole().map(|whole| whole as f64));
        let millionths = number.map(|share| (share * 1e6).round());
        let fits = millionths.filter(|millionths| (1.0..=1e6).contains(millionths));
        fits.map(|millionths| millionths as u32).or_else(|| {
            let example = (f64::from(example_ppm) / 1e6).to_string();
            self.refuse("a number of 0.000001 to 1", &example, None)
        })
    }

    fn whole(&self) -> Option<i64> {
        let integer = self.value.as_integer()?;
        i64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }
}

/// A value as a fault shows it.
fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => shown(text),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(array) if array.is_empty() => "[]".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

/// A text in quotes, cut where it is long.
pub(super) fn shown(text: &str) -> String {
    format!("{:?}", cut(text))
}

/// A text, cut where it is long: a fault is one line that can be read.
pub(super) fn cut(text: &str) -> String {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
