//! The fastest way: a record that is laid out as an earlier one.
//!
//! Most producers write the same fields in the same order with the same punctuation. The first few
//! layouts that are met are remembered: the bytes between the values, and who wants which value. A
//! record whose bytes between its values are the same has the same fields, so only its values are
//! looked at. Everything else, also a value of an unusual form, is left to the general way, which
//! alone says what is wrong with a record: this one never accepts what that does not.

use super::fields::Node;
use super::scan::{list_end, number_at, number_end, special_bytes};
use super::typed::Wanted;
use marquee_expr::Value;
use std::sync::OnceLock;

/// At most so many bytes are looked at together, from any byte of a record on.
pub(super) const WINDOW: usize = 32;

/// How many layouts are remembered.
const LAYOUTS: usize = 8;

/// The layouts that were met first. They do not change any more, so that threads share them. One
/// that is of no use takes a place, too: then what is laid out so costs little more than without.
#[derive(Clone, Debug, Default)]
pub(super) struct Layouts {
    known: [OnceLock<Option<Layout>>; LAYOUTS],
}

impl Layouts {
    /// Reads the record at the start of `text` into the slots of an event; the slots of no field
    /// stay as they are. Returns where the record ends; `None`: it is laid out otherwise.
    #[inline(always)]
    pub(super) fn read<'a>(
        &self,
        text: &'a str,
        wanted: &[Wanted],
        slots: &mut [Value<'a>],
    ) -> Option<usize> {
        for place in &self.known {
            if let Some(layout) = place.get()?
                && let Some(end) = layout.read(text, wanted, slots)
            {
                return Some(end);
            }
        }
        None
    }

    /// Remembers the layout of a record that the scanner has read, while there is room. The paths
    /// `of_record` need no field.
    #[inline]
    pub(super) fn learn(
        &self,
        text: &str,
        root: &Node,
        wanted: &[Wanted],
        of_record: &dyn Fn(usize) -> bool,
    ) {
        if self.known[LAYOUTS - 1].get().is_none() {
            self.remember(Learner::layout(text, root, wanted, of_record));
        }
    }

    #[cold]
    fn remember(&self, layout: Option<Layout>) {
        for place in &self.known {
            match place.get() {
                // It is known: a value was unusual, or another thread was faster.
                Some(known) if known.is_some() && *known == layout => return,
                Some(_) => {}
                None => {
                    let _ = place.set(layout);
                    return;
                }
            }
        }
    }
}

/// What stands around the values of a record.
#[derive(Clone, Debug, PartialEq)]
struct Layout {
    steps: Box<[Step]>,
    /// What stands after the last value.
    end: Literal,
    /// Slots that have no field here.
    absent: Box<[u16]>,
}

/// One value that is no object, and what stands before it.
#[derive(Clone, Debug, PartialEq)]
struct Step {
    before: Literal,
    want: Option<Want>,
}

/// Who wants a value: its place among the paths, and among the slots of an event.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Want {
    path: u16,
    slot: u16,
}

impl Layout {
    #[inline]
    fn read<'a>(&self, text: &'a str, wanted: &[Wanted], slots: &mut [Value<'a>]) -> Option<usize> {
        let bytes = text.as_bytes();
        let mut at = 0;
        for Step { before, want } in &self.steps {
            at = before.skip(bytes, at)?;
            match *bytes.get(at)? {
                b'"' => {
                    let start = at + 1;
                    let is_long = want.is_some_and(|want| want.path == 0);
                    let end = string_end(bytes, start, is_long)?;
                    if let Some(want) = want {
                        let value = wanted.get(want.path as usize)?.text(text.get(start..end)?)?;
                        *slots.get_mut(want.slot as usize)? = value;
                    }
                    at = end + 1;
                }
                b'-' | b'0'..=b'9' => match want {
                    Some(want) => {
                        let wanted = wanted.get(want.path as usize)?;
                        let (value, end) = match integer(bytes, at) {
                            Some((number, end)) => (wanted.int(number)?, end),
                            None => {
                                let (raw, end) = number_at(text, at)?;
                                (wanted.value(raw).ok()?, end)
                            }
                        };
                        *slots.get_mut(want.slot as usize)? = value;
                        at = end;
                    }
                    None => at = skip_number(bytes, at)?,
                },
                first => at = unusual(first, text, at, *want, wanted, slots)?,
            }
        }
        for slot in &self.absent {
            *slots.get_mut(*slot as usize)? = Value::Null;
        }
        self.end.skip(bytes, at)
    }
}

/// `true`, `false` or `null`, or a list that nobody wants.
#[inline(never)]
fn unusual<'a>(
    first: u8,
    text: &'a str,
    at: usize,
    want: Option<Want>,
    wanted: &[Wanted],
    slots: &mut [Value<'a>],
) -> Option<usize> {
    let (word, value) = match first {
        b't' => ("true", Some(true)),
        b'f' => ("false", Some(false)),
        b'n' => ("null", None),
        // Where a text is lines, a record ends with its line.
        b'[' if want.is_none() => {
            return list_end(text, at).filter(|end| !text[at..*end].contains('\n'));
        }
        _ => return None,
    };
    if !text.as_bytes().get(at..)?.starts_with(word.as_bytes()) {
        return None;
    }
    if let Some(want) = want {
        let value = wanted.get(want.path as usize)?.word(value)?;
        *slots.get_mut(want.slot as usize)? = value;
    }
    Some(at + word.len())
}

/// Bytes that must stand at a place.
#[derive(Clone, Debug, PartialEq)]
struct Literal {
    /// The first sixteen, and which of them count.
    word: u128,
    mask: u128,
    bytes: Box<[u8]>,
}

impl Literal {
    fn of(bytes: &[u8]) -> Self {
        let mut word = [0; 16];
        let mut mask = [0; 16];
        for ((word, mask), byte) in word.iter_mut().zip(&mut mask).zip(bytes) {
            (*word, *mask) = (*byte, 0xff);
        }
        let (word, mask) = (u128::from_le_bytes(word), u128::from_le_bytes(mask));
        Literal { word, mask, bytes: bytes.into() }
    }

    /// Where it ends, if it stands here.
    #[inline(always)]
    fn skip(&self, bytes: &[u8], at: usize) -> Option<usize> {
        let end = at + self.bytes.len();
        let Some(window) = bytes.get(at..)?.first_chunk::<16>() else {
            return (bytes.get(at..end)? == &*self.bytes).then_some(end);
        };
        if (u128::from_le_bytes(*window) ^ self.word) & self.mask != 0 {
            return None;
        }
        if self.bytes.len() > 16 && bytes.get(at + 16..end)? != &self.bytes[16..] {
            return None;
        }
        Some(end)
    }
}

/// Where the string that starts here has its closing quote, if it has no escapes.
#[inline(always)]
fn string_end(bytes: &[u8], start: usize, is_long: bool) -> Option<usize> {
    let mut at = start;
    // Request ids are long: as a whole they are looked at 32 bytes at a time.
    if is_long && let Some(chunk) = bytes.get(at..).and_then(|rest| rest.first_chunk::<WINDOW>()) {
        let is_special = |byte: &u8| (*byte == b'"') | (*byte == b'\\') | (*byte < 0x20);
        if !chunk.iter().fold(false, |any, byte| any | is_special(byte)) {
            at += WINDOW;
        }
    }
    loop {
        let special = special_bytes(load(bytes, at)?);
        if special != 0 {
            at += (special.trailing_zeros() / 8) as usize;
            return (*bytes.get(at)? == b'"').then_some(at);
        }
        at += 8;
    }
}

/// A whole number of at most fifteen digits.
#[inline(always)]
fn integer(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    const TEN_TO: [u64; 8] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];
    let is_negative = *bytes.get(at)? == b'-';
    let start = at + usize::from(is_negative);
    let word = load(bytes, start)?;
    let count = digits(word);
    let (number, end) = if count < 8 {
        if count == 0 {
            return None;
        }
        (first_digits(word, count), start + count)
    } else {
        let more = load(bytes, start + 8)?;
        let high = first_digits(word, 8);
        match digits(more) {
            0 => (high, start + 8),
            8 => return None,
            count => (high * TEN_TO[count] + first_digits(more, count), start + 8 + count),
        }
    };
    let is_odd = word as u8 == b'0' && (is_negative || end > start + 1);
    if is_odd || matches!(bytes.get(end), Some(b'.' | b'e' | b'E')) {
        return None;
    }
    let number = number as i64;
    Some((if is_negative { -number } else { number }, end))
}

/// A number that nobody wants.
#[inline(always)]
fn skip_number(bytes: &[u8], at: usize) -> Option<usize> {
    let word = load(bytes, at)?;
    let count = digits(word);
    let after = (word >> (8 * count.min(7))) as u8;
    let is_short = (1..8).contains(&count) && (word as u8 != b'0' || count == 1);
    if is_short && !matches!(after, b'.' | b'e' | b'E') {
        return Some(at + count);
    }
    number_end(bytes, at)
}

const ONES: u64 = 0x0101_0101_0101_0101;

/// How many digits a word starts with.
#[inline(always)]
fn digits(word: u64) -> usize {
    let values = word ^ (ONES * b'0' as u64);
    // A byte above 9 has its high bit set, or gets it; carries only reach bytes after it.
    let others = (values.wrapping_add(ONES * 0x76) | values) & (ONES * 0x80);
    (others.trailing_zeros() / 8) as usize
}

/// The number that 1 to 8 digits at the start of a word are.
#[inline(always)]
fn first_digits(word: u64, count: usize) -> u64 {
    // Zeros in front, then pairs, fours and all eight are added up.
    let ones = (word ^ (ONES * b'0' as u64)) << (64 - 8 * count);
    let pairs = ones.wrapping_mul(10).wrapping_add(ones >> 8);
    const MASK: u64 = 0x0000_00ff_0000_00ff;
    let high = (pairs & MASK).wrapping_mul(100 + (1_000_000 << 32));
    let low = ((pairs >> 16) & MASK).wrapping_mul(1 + (10_000 << 32));
    high.wrapping_add(low) >> 32
}

/// Eight bytes from here on, zeros after the end. `None` at the end.
#[inline(always)]
fn load(bytes: &[u8], at: usize) -> Option<u64> {
    let rest = bytes.get(at..)?;
    match rest.first_chunk::<8>() {
        Some(chunk) => Some(u64::from_le_bytes(*chunk)),
        None => load_last(rest),
    }
}

#[cold]
fn load_last(rest: &[u8]) -> Option<u64> {
    let mut word = [0; 8];
    word[..rest.len()].copy_from_slice(rest);
    (!rest.is_empty()).then_some(u64::from_le_bytes(word))
}

/// Finds the layout of a record that the scanner has read, so that it is known to be valid.
struct Learner<'t, 'n> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
    /// End of the last value.
    after_value: usize,
    steps: Vec<Step>,
    /// Nodes that have their field already.
    met: Vec<&'n Node>,
}

impl<'t, 'n> Learner<'t, 'n> {
    fn layout(
        text: &'t str,
        root: &'n Node,
        wanted: &[Wanted],
        of_record: &dyn Fn(usize) -> bool,
    ) -> Option<Layout> {
        let (bytes, steps, met) = (text.as_bytes(), Vec::new(), Vec::new());
        let mut learner = Learner { text, bytes, at: 0, after_value: 0, steps, met };
        learner.object(Some(root))?;
        let end = Literal::of(&learner.bytes[learner.after_value..]);
        let mut absent = Vec::new();
        for (path, wanted) in wanted.iter().enumerate() {
            let has_field = |step: &Step| step.want.is_some_and(|w| w.path as usize == path);
            if !learner.steps.iter().any(has_field) {
                if !wanted.may_be_missing() && !of_record(path) {
                    return None;
                }
                absent.push(u16::try_from(super::slot_of(path)).ok()?);
            }
        }
        // Lines are read one after the other: a layout must not reach into the next one.
        let one_line = |literal: &Literal| !literal.bytes.contains(&b'\n');
        let is_one_line = learner.steps.iter().all(|step| one_line(&step.before)) && one_line(&end);
        let layout = Layout { steps: learner.steps.into(), end, absent: absent.into() };
        is_one_line.then_some(layout)
    }

    fn object(&mut self, node: Option<&'n Node>) -> Option<()> {
        self.next();
        loop {
            match self.next()? {
                b'}' => return Some(()),
                b',' => {}
                _ => self.field(node)?,
            }
        }
    }

    /// A field, after the opening quote of its name.
    fn field(&mut self, node: Option<&'n Node>) -> Option<()> {
        let start = self.at;
        let end = string_end(self.bytes, start, false)?;
        self.at = end + 1;
        self.next(); // the colon
        let child = node.and_then(|node| node.find(self.bytes, start, end, &mut 0));
        if let Some(child) = child {
            // The last one of a name counts, with all that is below it: too much to ask here.
            if self.met.iter().any(|met| std::ptr::eq(*met, child)) {
                return None;
            }
            self.met.push(child);
        }
        while self.bytes.get(self.at)?.is_ascii_whitespace() {
            self.at += 1;
        }
        match (*self.bytes.get(self.at)?, child.map(|child| child.slots())) {
            (b'[', Some([_, ..])) => return None,
            (b'{', None | Some([])) => return self.object(child),
            (b'{', _) => return None,
            (_, None | Some([])) => self.value(None)?,
            (_, Some([path])) => {
                let slot = u16::try_from(super::slot_of(*path)).ok()?;
                self.value(Some(Want { path: u16::try_from(*path).ok()?, slot }))?;
            }
            _ => return None,
        }
        Some(())
    }

    /// A value that is no object.
    fn value(&mut self, want: Option<Want>) -> Option<()> {
        let before = Literal::of(&self.bytes[self.after_value..self.at]);
        self.at = match self.bytes[self.at] {
            b'"' => string_end(self.bytes, self.at + 1, false)? + 1,
            b'[' => list_end(self.text, self.at)?,
            _ => {
                let rest = &self.bytes[self.at..];
                let is_end = |byte: &u8| matches!(byte, b',' | b'}' | b' ' | b'\t' | b'\r' | b'\n');
                self.at + rest.iter().position(is_end)?
            }
        };
        self.after_value = self.at;
        self.steps.push(Step { before, want });
        Some(())
    }

    /// Skips blanks and one byte, which it gives.
    fn next(&mut self) -> Option<u8> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            if !byte.is_ascii_whitespace() {
                return Some(byte);
            }
        }
    }
}
