//! Filter and transform: one decoded event becomes nothing, a dead letter, or the video and the
//! slices that it counts under.
//!
//! Both are pure functions of one event, so they run on arrival and no attribute is kept.

use crate::symbols::Symbols;
use marquee_expr::{Declared, Environment, ExprError, Predicate, TextExpr, Type, Value};
use marquee_model::{Kind, MAX_ID_BYTES};
use std::borrow::Cow;
use thiserror::Error;

/// Slot of the request id among the values of an event.
pub const REQUEST_ID: usize = 0;
/// Slot of the video id, before the transform.
pub const VIDEO: usize = 1;
/// Slot of the event time, milliseconds.
pub const TIME: usize = 2;
/// Slot of the record time, milliseconds, or null where the input has none.
pub const RECORD_TIME: usize = 3;
/// Slot of the record's key, or null.
pub const KEY: usize = 4;
/// Slot of the record's headers.
pub const HEADERS: usize = 5;
/// Slot of the first declared attribute; the others follow in the order of declaration.
pub const ATTRIBUTES: usize = 6;

/// Attribute values of one event that may name slices, in bytes.
const MAX_SLICE_BYTES: usize = 4096;

/// What expressions can name: the six standard names, then the declared attributes.
pub fn environment(attributes: &[Declared]) -> Environment {
    let standard = [
        ("request_id", Type::String, false),
        ("video", Type::String, false),
        ("time", Type::Int, false),
        ("record_time", Type::Int, true),
        ("key", Type::String, true),
        ("headers", Type::StringMap, false),
    ];
    let mut declared: Vec<Declared> = standard
        .into_iter()
        .map(|(name, ty, optional)| Declared { name: name.to_owned(), ty, optional })
        .collect();
    declared.extend_from_slice(attributes);
    Environment::new(declared)
}

/// Why an event is a dead letter.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum DeadReason {
    /// The record or one of its fields cannot be read as the mapping says.
    #[error("{0}")]
    Malformed(String),
    /// The event claims to be from too far in the future of its record.
    #[error(
        "the event time is {ahead_ms} ms after the record time, more than max_ahead \
         ({max_ahead_ms} ms): the client's clock is wrong"
    )]
    TooFarAhead {
        /// How far.
        ahead_ms: i64,
        /// The setting.
        max_ahead_ms: i64,
    },
    /// An expression ended in an error.
    #[error("{what} `{source_text}` failed: {error}")]
    Expression {
        /// Which setting holds the expression.
        what: &'static str,
        /// The expression.
        source_text: String,
        /// Its error.
        error: String,
    },
    /// The transform gave a text that is no video id.
    #[error("[transform] video gave an id of {0} bytes; 1 to 1024 are allowed")]
    VideoLength(usize),
    /// The attributes of the slices are too long to name a cell.
    #[error("the attributes of the slices have {0} bytes; at most 4096 can name a slice")]
    SliceLength(usize),
}

/// How the events of one stream (impressions or plays) become countable.
#[derive(Clone)]
pub struct Stream {
    kind: Kind,
    filter: Option<Predicate>,
    video: Option<TextExpr>,
    /// For each grouping set the names and slots of its attributes, sorted by name.
    slices: Vec<Vec<(String, usize)>>,
    /// All slots that slices use, without repetition.
    slice_slots: Vec<usize>,
}

/// An error in the settings of a stream.
#[derive(Debug, Error)]
pub enum StreamError {
    /// The filter does not compile.
    #[error("filter: {0}")]
    Filter(ExprError),
    /// The transform does not compile.
    #[error("[transform] video: {0}")]
    Video(ExprError),
    /// A slice names an attribute that the stream does not declare.
    #[error("slices name the attribute {0:?}, which [{1}] attributes does not declare")]
    UnknownAttribute(String, &'static str),
}

/// What became of an event so far.
pub enum Prepared<'v> {
    /// The filter refused it: for everything that follows it does not exist.
    Filtered,
    /// It is bad.
    Dead(DeadReason),
    /// It counts under this video.
    Video(Cow<'v, str>),
}

impl Stream {
    /// Compiles the settings. Empty expressions are left out. `counts_by_slice` is false for plays
    /// that are counted in the cohort of their impression: their own slices do not matter.
    pub fn new(
        kind: Kind,
        attributes: &[Declared],
        filter: &str,
        video: &str,
        slices: &[Vec<String>],
        counts_by_slice: bool,
    ) -> Result<Self, StreamError> {
        let environment = environment(attributes);
        let filter = (!filter.is_empty())
            .then(|| environment.predicate(filter))
            .transpose()
            .map_err(StreamError::Filter)?;
        let video = (!video.is_empty())
            .then(|| environment.text(video))
            .transpose()
            .map_err(StreamError::Video)?;
        let slices = if counts_by_slice { slices } else { &[] };
        let slices = slices
            .iter()
            .map(|names| slots_of(kind, attributes, names))
            .collect::<Result<Vec<_>, _>>()?;
        let mut slice_slots: Vec<usize> = slices.iter().flatten().map(|(_, slot)| *slot).collect();
        slice_slots.sort_unstable();
        slice_slots.dedup();
        Ok(Stream { kind, filter, video, slices, slice_slots })
    }

    /// Impressions or plays.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The names and slots of the attributes of each grouping set: what tuples of slices are made
    /// of, and in which order.
    pub fn slices(&self) -> &[Vec<(String, usize)>] {
        &self.slices
    }

    /// Filters one event and finds the video that it counts under.
    #[inline]
    pub fn prepare<'v>(&self, values: &'v [Value<'v>]) -> Prepared<'v> {
        if let Some(filter) = &self.filter {
            match filter.eval(values) {
                Ok(true) => {}
                Ok(false) => return Prepared::Filtered,
                Err(error) => return dead("filter", filter.source(), error.to_string()),
            }
        }
        if !self.slice_slots.is_empty()
            && let Some(bytes) = self.slice_too_long(values)
        {
            return Prepared::Dead(DeadReason::SliceLength(bytes));
        }
        let Some(transform) = &self.video else {
            return match &values[VIDEO] {
                Value::String(video) => Prepared::Video(Cow::Borrowed(video)),
                other => Prepared::Dead(DeadReason::Malformed(format!("video is {other:?}"))),
            };
        };
        match transform.eval(values) {
            Ok(video) if (1..=MAX_ID_BYTES).contains(&video.len()) => Prepared::Video(video),
            Ok(video) => Prepared::Dead(DeadReason::VideoLength(video.len())),
            Err(error) => dead("[transform] video", transform.source(), error.to_string()),
        }
    }

    fn slice_too_long(&self, values: &[Value<'_>]) -> Option<usize> {
        let bytes_of = |slot: &usize| match &values[*slot] {
            Value::String(text) => text.len(),
            _ => 8,
        };
        let bytes: usize = self.slice_slots.iter().map(bytes_of).sum();
        (bytes > MAX_SLICE_BYTES).then_some(bytes)
    }

    /// Whether the values of an event decide its tuple of slices. Where they do not, all events
    /// have the same.
    pub fn has_slices(&self) -> bool {
        !self.slice_slots.is_empty()
    }

    /// The number of the event's tuple of slices. `scratch` is cleared and used.
    #[inline]
    pub fn tuple(
        &self,
        values: &[Value<'_>],
        epoch: i64,
        symbols: &mut Symbols,
        scratch: &mut Vec<u8>,
    ) -> u32 {
        if self.slice_slots.is_empty() {
            return symbols.plain_tuple();
        }
        scratch.clear();
        for slot in &self.slice_slots {
            write_key(&values[*slot], scratch);
        }
        symbols.tuple(scratch, epoch, |grouping, text| {
            write_slice(&self.slices[grouping], values, text)
        })
    }
}

fn slots_of(
    kind: Kind,
    attributes: &[Declared],
    names: &[String],
) -> Result<Vec<(String, usize)>, StreamError> {
    let slot = |name: &String| {
        let place = attributes.iter().position(|a| a.name == *name);
        let error = || StreamError::UnknownAttribute(name.clone(), kind.plural());
        Ok((name.clone(), ATTRIBUTES + place.ok_or_else(error)?))
    };
    let mut slots = names.iter().map(slot).collect::<Result<Vec<_>, _>>()?;
    slots.sort();
    Ok(slots)
}

#[cold]
fn dead<'v>(what: &'static str, source: &str, error: String) -> Prepared<'v> {
    let source_text = source.to_owned();
    Prepared::Dead(DeadReason::Expression { what, source_text, error })
}

/// Bytes that tell a value from every other of its attribute.
fn write_key(value: &Value<'_>, bytes: &mut Vec<u8>) {
    match value {
        Value::Null => bytes.push(0),
        Value::String(text) => {
            bytes.push(1);
            bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        Value::Int(number) => {
            bytes.push(2);
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        Value::Double(number) => {
            bytes.push(3);
            bytes.extend_from_slice(&number.to_bits().to_le_bytes());
        }
        Value::Bool(value) => bytes.extend_from_slice(&[4, u8::from(*value)]),
        Value::StringMap(_) => unreachable!("headers are no attribute"),
    }
}

/// The slice of one grouping set: compact JSON with sorted keys, nothing for the empty set.
fn write_slice(attributes: &[(String, usize)], values: &[Value<'_>], out: &mut Vec<u8>) {
    if attributes.is_empty() {
        return;
    }
    for (place, (name, slot)) in attributes.iter().enumerate() {
        out.push(if place == 0 { b'{' } else { b',' });
        write_json(out, name);
        out.push(b':');
        match &values[*slot] {
            Value::Null => out.extend_from_slice(b"null"),
            Value::String(text) => write_json(out, text),
            Value::Int(number) => write_json(out, number),
            Value::Double(number) => write_json(out, number),
            Value::Bool(value) => write_json(out, value),
            Value::StringMap(_) => unreachable!("headers are no attribute"),
        }
    }
    out.push(b'}');
}

fn write_json(out: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    serde_json::to_writer(out, value).expect("scalars always serialize, and a Vec takes all");
}
