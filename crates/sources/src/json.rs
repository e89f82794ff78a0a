//! Decoding: one JSON record becomes the typed values of its events, by the mapping of the config.
//!
//! Only the fields that the mapping names are kept; strings are borrowed from the record unless
//! they contain escapes. Whatever is wrong is a [`DeadReason`], never an error of the program.

mod columns;
mod fields;
mod layout;
mod scan;
mod typed;

use arrow_array::StructArray;
use columns::{BLOCK, Block};
pub use columns::{Columns, Words};
use fields::{Fields, Raw};
use layout::{Layouts, WINDOW};
use marquee_expr::{Declared, RecordPredicate, Value};
use marquee_pipeline::prepare::{ATTRIBUTES, DeadReason, HEADERS, KEY, RECORD_TIME};
use serde_json::Value as Json;
use smallvec::SmallVec;
use std::borrow::Cow;
use typed::Wanted;

/// A record of this many bytes or more is a dead letter.
pub const MAX_RECORD_BYTES: usize = 16 << 20;
/// Records of more bytes than this together are not copied: there is nothing to win.
const SIDE_BY_SIDE: usize = 256 << 10;

/// The unit of a time field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds since 1970 UTC, whole or with a fraction.
    Seconds,
    /// Whole milliseconds since 1970 UTC.
    Milliseconds,
    /// Whole microseconds since 1970 UTC, cut to milliseconds.
    Microseconds,
    /// RFC 3339 text.
    Rfc3339,
}

/// Names of nested fields, outermost first. A first name of `$record` means the record itself and
/// not its JSON: see [`OfRecord`].
pub type Path = Vec<String>;

/// What a path that begins with `$record` names: something that the log knows about a record.
/// Files know none of it, so there it is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfRecord {
    /// `$record.key`, as text.
    Key,
    /// `$record.headers.NAME`: the value of the last header of that name, as text; of
    /// several the last one counts in expressions, too.
    Header(String),
    /// `$record.time`: the log's own timestamp, milliseconds since 1970 UTC.
    Time,
    /// `$record.partition`: the number of the lane.
    Partition,
    /// `$record.offset`.
    Offset,
}

impl OfRecord {
    /// The first name of such paths.
    pub const PREFIX: &str = "$record";

    /// Reads a path. `None`: it is a path in the JSON.
    ///
    /// # Errors
    /// If it begins with `$record` and goes on with something that a record does not have.
    pub fn of_path(path: &[String]) -> Option<Result<OfRecord, UnknownOfRecord>> {
        let (first, rest) = path.split_first()?;
        if first != Self::PREFIX {
            return None;
        }
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        Some(match rest.as_slice() {
            ["key"] => Ok(OfRecord::Key),
            ["time"] => Ok(OfRecord::Time),
            ["partition"] => Ok(OfRecord::Partition),
            ["offset"] => Ok(OfRecord::Offset),
            ["headers", name @ ..] if !name.is_empty() => Ok(OfRecord::Header(name.join("."))),
            _ => Err(UnknownOfRecord),
        })
    }

    fn raw<'a>(&self, meta: &RecordMeta<'a>) -> Raw<'a> {
        let number = |number: Option<i64>| number.map_or(Raw::Missing, Raw::Int);
        match self {
            OfRecord::Key => match meta.key {
                Some(key) => Raw::String(String::from_utf8_lossy(key)),
                None => Raw::Missing,
            },
            OfRecord::Header(name) => {
                let value = meta.headers.iter().rfind(|(found, _)| found == name);
                value.map_or(Raw::Missing, |(_, value)| Raw::String(Cow::Borrowed(value)))
            }
            OfRecord::Time => number(meta.record_time_ms),
            OfRecord::Partition => number(meta.partition.map(i64::from)),
            OfRecord::Offset => number(meta.offset.and_then(|o| i64::try_from(o).ok())),
        }
    }
}

/// A path names something that a record does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownOfRecord;

/// Where the fields of an event stand in a record.
#[derive(Clone)]
pub struct Mapping {
    /// Records for which this is not true belong to another stream.
    pub record_filter: Option<RecordPredicate>,
    /// A list of which each element is an event: its fields first, then the record's.
    pub explode: Option<Path>,
    /// Path of the request id.
    pub request_id: Path,
    /// Path of the video id.
    pub video: Path,
    /// Path of the event time.
    pub time: Path,
    /// Unit of the event time.
    pub time_unit: TimeUnit,
    /// Declared attributes and their paths.
    pub attributes: Vec<(Declared, Path)>,
}

impl Mapping {
    /// All paths: those of the event's own three fields, then those of its attributes.
    fn paths(&self) -> impl Iterator<Item = &Path> {
        let standard = [&self.request_id, &self.video, &self.time];
        standard.into_iter().chain(self.attributes.iter().map(|(_, path)| path))
    }
}

/// What a log knows about a record besides its payload.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecordMeta<'a> {
    /// The log's own timestamp, where it has one.
    pub record_time_ms: Option<i64>,
    /// The record's key.
    pub key: Option<&'a [u8]>,
    /// The record's headers.
    pub headers: &'a [(Cow<'a, str>, Cow<'a, str>)],
    /// The partition (lane) that it stands in.
    pub partition: Option<u32>,
    /// Its offset there.
    pub offset: Option<u64>,
}

/// The values of one event, in the slots of [`marquee_pipeline::prepare`].
pub type Values<'a> = SmallVec<[Value<'a>; 10]>;

/// Decodes the records of one stream.
#[derive(Clone)]
pub struct Decoder {
    mapping: Mapping,
    /// What each slot wants, by the order of `fields`' slots.
    wanted: Vec<Wanted>,
    fields: Fields,
    layouts: Layouts,
    /// Slots that are filled from what the log knows, by the order of `fields`' slots.
    of_record: Vec<(usize, OfRecord)>,
}

impl Decoder {
    /// For a checked mapping.
    pub fn new(mapping: Mapping) -> Self {
        let paths = || mapping.paths();
        let names = paths().map(|path| path.join(".")).collect::<Vec<_>>();
        let mut wanted = vec![
            Wanted::id(&names[0]),
            Wanted::id(&names[1]),
            Wanted::time(&names[2], mapping.time_unit),
        ];
        let attributes = mapping.attributes.iter().zip(&names[3..]);
        wanted.extend(attributes.map(|((declared, _), name)| Wanted::attribute(name, declared)));
        let of_record: Vec<(usize, OfRecord)> = paths()
            .enumerate()
            .filter_map(|(slot, path)| Some((slot, OfRecord::of_path(path)?.ok()?)))
            .collect();
        if of_record.iter().any(|(slot, of)| (*slot, of) == (2, &OfRecord::Time)) {
            wanted[2] = Wanted::time(&names[2], TimeUnit::Milliseconds);
        }
        let (fields, layouts) = (Fields::new(paths()), Layouts::default());
        Decoder { fields, layouts, wanted, of_record, mapping }
    }

    /// Where the fields stand.
    pub fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    /// Decodes one record and calls `each` for every event of it, good or bad. A record of another
    /// stream has no events.
    #[inline]
    pub fn decode(
        &self,
        record: &[u8],
        meta: &RecordMeta<'_>,
        mut each: impl FnMut(Result<&Values<'_>, DeadReason>),
    ) {
        if record.len() >= MAX_RECORD_BYTES {
            return each(Err(too_long(record.len())));
        }
        if self.sees_whole_records() {
            return self.decode_tree(record, meta, &mut each);
        }
        let text = std::str::from_utf8(record).ok();
        if let Some(text) = text {
            let mut values = self.without_fields(meta);
            if self.read_alike(text, meta, &mut values) == Some(text.len()) {
                return each(Ok(&values));
            }
        }
        self.decode_any(record, text, meta, &mut each);
    }

    /// Decodes records that are there at the same time, in their order, and calls `each` for every
    /// event with the number of its record. `buffer` is used.
    ///
    /// They are copied side by side: then their texts are checked at once, no record ends at the end
    /// of what may be looked at, and slots that no record changes are filled once.
    #[inline]
    pub fn decode_all<'r>(
        &self,
        records: impl Iterator<Item = (&'r [u8], RecordMeta<'r>)> + Clone,
        buffer: &mut Vec<u8>,
        mut each: impl FnMut(usize, Result<&Values<'_>, DeadReason>),
    ) {
        let bytes = records.clone().map(|(record, _)| record.len()).sum::<usize>();
        let text = match self.sees_whole_records() || bytes > SIDE_BY_SIDE {
            true => None,
            false => side_by_side(records.clone().map(|(record, _)| record), buffer),
        };
        let Some(text) = text else {
            for (number, (record, meta)) in records.enumerate() {
                self.decode(record, &meta, |event| each(number, event));
            }
            return;
        };
        let mut values = self.without_fields(&RecordMeta::default());
        let mut at = 0;
        for (number, (record, meta)) in records.enumerate() {
            let (rest, end) = (&text[at..], at + record.len());
            set_meta(&mut values, &meta);
            match self.read_alike(rest, &meta, &mut values) {
                Some(len) if len == record.len() => each(number, Ok(&values)),
                _ => {
                    let event = &mut |event: Result<&Values<'_>, _>| each(number, event);
                    self.decode_any(record, Some(&text[at..end]), &meta, event);
                }
            }
            at = end + 1;
        }
    }

    /// Decodes lines, of which each is a record, and calls `each` for every event with the number
    /// of its line and the line. `first` is the number of the first line; blank lines are none.
    #[inline]
    pub fn decode_lines(
        &self,
        lines: &[u8],
        first: u64,
        mut each: impl FnMut(u64, &[u8], Result<&Values<'_>, DeadReason>),
    ) {
        let meta = RecordMeta::default();
        // Checked once for all lines. Where it fails, each line is looked at by itself.
        let text = match self.sees_whole_records() {
            true => None,
            false => std::str::from_utf8(lines).ok(),
        };
        let mut values = self.without_fields(&meta);
        let (mut number, mut at) = (first, 0);
        while at < lines.len() {
            if let Some(rest) = text.and_then(|text| text.get(at..))
                && let Some(len) = self.read_alike(rest, &meta, &mut values)
                && let Some(ending) = line_ending(&lines[at + len..])
                && len < MAX_RECORD_BYTES
            {
                each(number, &lines[at..at + len], Ok(&values));
                at += len + ending;
            } else {
                let len = memchr::memchr(b'\n', &lines[at..]).unwrap_or(lines.len() - at);
                let record = lines[at..at + len].trim_ascii();
                if !record.is_empty() {
                    self.decode(record, &meta, |event| each(number, record, event));
                }
                at += len + 1;
            }
            number += 1;
        }
    }

    /// Finds the fields in rows whose columns are those of records. A mapping that sees whole
    /// records has no columns.
    pub fn find_columns(&self, rows: &StructArray) -> Columns {
        let paths = self.mapping.paths().enumerate();
        Columns::find(rows, paths.map(|(path, names)| (!self.is_of_record(path)).then_some(names)))
    }

    /// Decodes rows by their columns, and calls `each` with the place of every row.
    #[inline]
    pub fn decode_rows(
        &self,
        columns: &Columns,
        mut each: impl FnMut(usize, Result<&[Value<'_>], DeadReason>),
    ) {
        let empty = self.without_fields(&RecordMeta::default());
        let mut block = Block::of(&empty);
        for first in (0..columns.rows).step_by(BLOCK) {
            let rows = first..columns.rows.min(first + BLOCK);
            let mut bad = 0;
            for (path, (column, wanted)) in columns.columns.iter().zip(&self.wanted).enumerate() {
                bad |= column.fill(rows.clone(), wanted, slot_of(path), &mut block);
            }
            for (row, values) in rows.zip(block.rows()) {
                // Why it is bad is asked again: then no good row carries the words of a bad one.
                match bad >> (row - first) & 1 {
                    0 => each(row, Ok(values)),
                    _ => each(row, Err(self.why_bad(columns, row))),
                }
            }
        }
    }

    #[cold]
    fn why_bad(&self, columns: &Columns, row: usize) -> DeadReason {
        let raws = columns.columns.iter().map(|column| column.raw(row));
        self.values(raws, &RecordMeta::default()).expect_err("a value of this row is bad")
    }

    /// The outermost names of all fields, where records can be read by columns: not where the
    /// mapping sees whole records.
    pub fn columns(&self) -> Option<Vec<String>> {
        let first = |path: &Path| path.first().cloned();
        (!self.sees_whole_records()).then(|| self.mapping.paths().filter_map(first).collect())
    }

    fn is_of_record(&self, path: usize) -> bool {
        self.of_record.iter().any(|(other, _)| *other == path)
    }

    fn sees_whole_records(&self) -> bool {
        self.mapping.record_filter.is_some() || self.mapping.explode.is_some()
    }

    /// Reads the record at the start of a text, if it is laid out as one before, and gives where it
    /// ends.
    #[inline(always)]
    fn read_alike<'a>(
        &self,
        text: &'a str,
        meta: &RecordMeta<'a>,
        values: &mut Values<'a>,
    ) -> Option<usize> {
        let end = self.layouts.read(text, &self.wanted, values)?;
        if !self.of_record.is_empty() {
            for (path, of) in &self.of_record {
                values[slot_of(*path)] = self.wanted[*path].value(of.raw(meta)).ok()?;
            }
        }
        Some(end)
    }

    /// The slots of an event before any field is read.
    #[inline]
    fn without_fields<'a>(&self, meta: &RecordMeta<'a>) -> Values<'a> {
        let mut values = Values::new();
        for _ in 0..RECORD_TIME {
            values.push(Value::Null);
        }
        push_meta(&mut values, meta);
        for _ in RECORD_TIME..self.wanted.len() {
            values.push(Value::Null);
        }
        values
    }

    /// The way for every record that is laid out as none before.
    #[inline(never)]
    fn decode_any(
        &self,
        record: &[u8],
        text: Option<&str>,
        meta: &RecordMeta<'_>,
        each: &mut dyn FnMut(Result<&Values<'_>, DeadReason>),
    ) {
        let scanned = text.and_then(|text| self.fields.scan(text));
        if let (Some(text), Some(_)) = (text, &scanned) {
            let of_record = |path| self.is_of_record(path);
            self.layouts.learn(text, &self.fields.root, &self.wanted, &of_record);
        }
        let mut raw = match scanned.map_or_else(|| self.fields.read_any(record), Ok) {
            Ok(raw) => raw,
            Err(reason) => return each(Err(reason)),
        };
        for (slot, of) in &self.of_record {
            raw[*slot] = of.raw(meta);
        }
        match self.values(raw.into_iter(), meta) {
            Ok(values) => each(Ok(&values)),
            Err(reason) => each(Err(reason)),
        }
    }

    /// The way for mappings that look at the whole record.
    fn decode_tree(
        &self,
        record: &[u8],
        meta: &RecordMeta<'_>,
        each: &mut dyn FnMut(Result<&Values<'_>, DeadReason>),
    ) {
        let tree: Json = match serde_json::from_slice(record) {
            Ok(tree @ Json::Object(_)) => tree,
            Ok(other) => return each(Err(not_an_object(&other))),
            Err(error) => return each(Err(not_json(&error))),
        };
        match self.mapping.record_filter.as_ref().map(|filter| filter.eval(&tree)) {
            None | Some(Ok(true)) => {}
            Some(Ok(false)) => return,
            Some(Err(error)) => return each(Err(where_failed(&self.mapping, &error.to_string()))),
        }
        let Some(explode) = &self.mapping.explode else {
            return self.element(None, &tree, meta, each);
        };
        match lookup(&tree, explode) {
            Some(Json::Array(elements)) => {
                for element in elements {
                    self.element(Some((explode, element)), &tree, meta, each);
                }
            }
            _ => each(Err(no_list(explode))),
        }
    }

    fn element(
        &self,
        element: Option<(&Path, &Json)>,
        record: &Json,
        meta: &RecordMeta<'_>,
        each: &mut dyn FnMut(Result<&Values<'_>, DeadReason>),
    ) {
        let find = |path: &Path| match element {
            // The elements of a plain list are addressed by the path of the list itself.
            Some((explode, element)) if path == explode => Some(element),
            Some((_, element)) => lookup(element, path).or_else(|| lookup(record, path)),
            None => lookup(record, path),
        };
        let paths = self.mapping.paths();
        let of_record = |slot: usize| self.of_record.iter().find(|(s, _)| *s == slot);
        let raw = paths.enumerate().map(|(slot, path)| match of_record(slot) {
            Some((_, of)) => of.raw(meta),
            None => Raw::of_tree(find(path)),
        });
        match self.values(raw, meta) {
            Ok(values) => each(Ok(&values)),
            Err(reason) => each(Err(reason)),
        }
    }

    /// Puts typed values into their slots.
    #[inline]
    fn values<'a>(
        &self,
        raw: impl Iterator<Item = Raw<'a>>,
        meta: &RecordMeta<'a>,
    ) -> Result<Values<'a>, DeadReason> {
        let mut values = Values::new();
        for (place, (raw, wanted)) in raw.zip(&self.wanted).enumerate() {
            if place == RECORD_TIME {
                push_meta(&mut values, meta);
            }
            values.push(wanted.value(raw)?);
        }
        if self.wanted.len() == RECORD_TIME {
            push_meta(&mut values, meta);
        }
        Ok(values)
    }
}

/// Copies records into a buffer, each followed by a line feed and the last by enough of them, and
/// gives the text that they are; `None` if one of them is none.
#[inline]
fn side_by_side<'b, 'r>(
    records: impl Iterator<Item = &'r [u8]>,
    buffer: &'b mut Vec<u8>,
) -> Option<&'b str> {
    buffer.clear();
    for record in records {
        buffer.extend_from_slice(record);
        buffer.push(b'\n');
    }
    buffer.extend_from_slice(&[b'\n'; WINDOW]);
    std::str::from_utf8(buffer).ok()
}

/// How long the line ending is that stands here.
#[inline(always)]
fn line_ending(rest: &[u8]) -> Option<usize> {
    match rest {
        [] | [b'\n', ..] => Some(1),
        [b'\r', b'\n', ..] => Some(2),
        _ => None,
    }
}

/// The slot of a path among the values of an event.
fn slot_of(path: usize) -> usize {
    if path < RECORD_TIME { path } else { path + (ATTRIBUTES - RECORD_TIME) }
}

/// Adds the slots between the event's own three fields and its attributes.
#[inline]
fn push_meta<'a>(values: &mut Values<'a>, meta: &RecordMeta<'a>) {
    debug_assert_eq!((RECORD_TIME, KEY, HEADERS, ATTRIBUTES), (3, 4, 5, 6));
    values.extend(values_of(meta));
}

/// Sets these slots.
#[inline(always)]
fn set_meta<'a>(values: &mut Values<'a>, meta: &RecordMeta<'a>) {
    for (slot, value) in values[RECORD_TIME..ATTRIBUTES].iter_mut().zip(values_of(meta)) {
        *slot = value;
    }
}

#[inline(always)]
fn values_of<'a>(meta: &RecordMeta<'a>) -> [Value<'a>; ATTRIBUTES - RECORD_TIME] {
    let key = |key| Value::String(String::from_utf8_lossy(key));
    [
        meta.record_time_ms.map_or(Value::Null, Value::Int),
        meta.key.map_or(Value::Null, key),
        Value::StringMap(meta.headers),
    ]
}

fn lookup<'j>(tree: &'j Json, path: &Path) -> Option<&'j Json> {
    path.iter().try_fold(tree, |tree, name| tree.as_object()?.get(name))
}

#[cold]
fn too_long(len: usize) -> DeadReason {
    DeadReason::Malformed(format!(
        "the record has {len} bytes; records must stay under {MAX_RECORD_BYTES}"
    ))
}

#[cold]
fn not_json(error: &serde_json::Error) -> DeadReason {
    DeadReason::Malformed(format!("not JSON: {error}"))
}

#[cold]
fn not_an_object(found: &Json) -> DeadReason {
    let kind = Raw::of_tree(Some(found)).kind();
    DeadReason::Malformed(format!("the record is {kind}, not a JSON object"))
}

#[cold]
fn no_list(path: &Path) -> DeadReason {
    DeadReason::Malformed(format!("explode: there is no list at {:?}", path.join(".")))
}

#[cold]
fn where_failed(mapping: &Mapping, error: &str) -> DeadReason {
    let source_text = mapping.record_filter.as_ref().map_or("", |f| f.source()).to_owned();
    DeadReason::Expression { what: "where", source_text, error: error.to_owned() }
}

#[cfg(test)]
mod tests;
