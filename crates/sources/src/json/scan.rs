//! The fast way through an ordinary record.
//!
//! It reads what most records are made of (objects, short strings without escapes, whole numbers)
//! and gives up on everything else: then `serde_json` reads the record and has the last word, also
//! on what is wrong with it. So this scanner may refuse too much, but it must never accept what
//! `serde_json` does not, or read it otherwise; a property test compares the two.

use super::fields::{Node, Raw, Raws};
use std::borrow::Cow;

/// Nested deeper than this, a record is not ordinary.
const MAX_DEPTH: usize = 16;

/// Reads a record into the slots of a tree of paths. `None`: it is not ordinary.
#[inline]
pub(super) fn read<'a>(record: &'a str, root: &Node, raws: &mut Raws<'a>) -> Option<()> {
    let mut scan = Scan { text: record, bytes: record.as_bytes(), at: 0 };
    scan.expect(b'{')?;
    scan.object(Some(root), raws, 0)?;
    (scan.blanks() == 0 && scan.at == record.len()).then_some(())
}

/// Where a number that stands here ends.
pub(super) fn number_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut scan = Scan { text: "", bytes, at };
    scan.number()?;
    Some(scan.at)
}

/// A number with a fraction, or a long one, and where it ends.
#[inline(never)]
pub(super) fn number_at(text: &str, at: usize) -> Option<(Raw<'static>, usize)> {
    let end = number_end(text.as_bytes(), at)?;
    let number: serde_json::Number = serde_json::from_str(text.get(at..end)?).ok()?;
    Some((Raw::of_number(&number), end))
}

/// Where a list that stands here ends.
pub(super) fn list_end(text: &str, at: usize) -> Option<usize> {
    let mut scan = Scan { text, bytes: text.as_bytes(), at };
    scan.list(&mut Raws::new(), 1)?;
    Some(scan.at)
}

struct Scan<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    /// The byte here; 0, which no ordinary record holds, at the end.
    #[inline(always)]
    fn peek(&self) -> u8 {
        match self.bytes.get(self.at) {
            Some(byte) => *byte,
            None => 0,
        }
    }

    /// Skips blanks and gives the byte after them.
    #[inline(always)]
    fn blanks(&mut self) -> u8 {
        let mut byte = self.peek();
        while matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
            byte = self.peek();
        }
        byte
    }

    /// Skips blanks and this byte.
    #[inline(always)]
    fn expect(&mut self, byte: u8) -> Option<()> {
        if self.blanks() != byte {
            return None;
        }
        self.at += 1;
        Some(())
    }

    /// The fields of an object, after its `{`. Without a node they are only checked.
    fn object(&mut self, node: Option<&Node>, raws: &mut Raws<'a>, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        if self.blanks() == b'}' {
            self.at += 1;
            return Some(());
        }
        let mut expected = 0;
        loop {
            self.expect(b'"')?;
            let (start, end) = self.string()?;
            self.expect(b':')?;
            let child = match node {
                Some(node) => node.find(self.bytes, start, end, &mut expected),
                None => None,
            };
            self.value(child, raws, depth)?;
            match self.blanks() {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    #[inline(always)]
    fn value(&mut self, node: Option<&Node>, raws: &mut Raws<'a>, depth: usize) -> Option<()> {
        let first = self.blanks();
        let Some(node) = node else { return self.unwanted(first, raws, depth) };
        let raw = match first {
            b'"' => {
                self.at += 1;
                let (start, end) = self.string()?;
                Raw::String(Cow::Borrowed(self.text.get(start..end)?))
            }
            b'-' | b'0'..=b'9' => {
                let start = self.at;
                match self.integer() {
                    Some(number) => Raw::Int(number),
                    None => {
                        let (raw, end) = number_at(self.text, start)?;
                        self.at = end;
                        raw
                    }
                }
            }
            b't' => self.word("true", Raw::Bool(true))?,
            b'f' => self.word("false", Raw::Bool(false))?,
            b'n' => self.word("null", Raw::Null)?,
            b'{' => {
                self.at += 1;
                node.forget_children(raws);
                node.set(raws, Raw::Object);
                return self.object(Some(node), raws, depth + 1);
            }
            _ => return None,
        };
        node.forget_children(raws);
        node.set(raws, raw);
        Some(())
    }

    /// A value that nobody wants is only checked.
    #[inline(always)]
    fn unwanted(&mut self, first: u8, raws: &mut Raws<'a>, depth: usize) -> Option<()> {
        match first {
            b'"' => {
                self.at += 1;
                self.string().map(|_| ())
            }
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.word("true", ()),
            b'f' => self.word("false", ()),
            b'n' => self.word("null", ()),
            b'{' => {
                self.at += 1;
                self.object(None, raws, depth + 1)
            }
            b'[' => self.list(raws, depth + 1),
            _ => None,
        }
    }

    /// A list that nobody wants.
    fn list(&mut self, raws: &mut Raws<'a>, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.at += 1;
        if self.blanks() == b']' {
            self.at += 1;
            return Some(());
        }
        loop {
            let first = self.blanks();
            self.unwanted(first, raws, depth)?;
            match self.blanks() {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    /// A string without escapes, after its opening quote: where it starts and ends.
    #[inline(always)]
    fn string(&mut self) -> Option<(usize, usize)> {
        let start = self.at;
        let mut at = start;
        // Eight bytes at a time, as long as none of them ends the string or is special.
        while let Some(word) = self.bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
            let special = special_bytes(u64::from_le_bytes(*word));
            if special != 0 {
                at += (special.trailing_zeros() / 8) as usize;
                self.at = at + 1;
                return (self.bytes[at] == b'"').then_some((start, at));
            }
            at += 8;
        }
        while let Some(&byte) = self.bytes.get(at) {
            if matches!(byte, b'"' | b'\\' | 0..0x20) {
                self.at = at + 1;
                return (byte == b'"').then_some((start, at));
            }
            at += 1;
        }
        None
    }

    /// A whole number of at most 18 digits: those fit and need no check.
    #[inline(always)]
    fn integer(&mut self) -> Option<i64> {
        let is_negative = self.peek() == b'-';
        self.at += usize::from(is_negative);
        let start = self.at;
        let mut number = 0_i64;
        let mut digit = self.peek().wrapping_sub(b'0');
        while digit < 10 {
            number = number.wrapping_mul(10).wrapping_add(i64::from(digit));
            self.at += 1;
            digit = self.peek().wrapping_sub(b'0');
        }
        let digits = self.at - start;
        let is_plain = (1..=18).contains(&digits)
            && (self.bytes[start] != b'0' || (digits == 1 && !is_negative))
            && !matches!(self.peek(), b'.' | b'e' | b'E');
        is_plain.then_some(if is_negative { number.wrapping_neg() } else { number })
    }

    /// Any number that nobody wants.
    fn number(&mut self) -> Option<()> {
        self.at += usize::from(self.peek() == b'-');
        let start = self.at;
        self.digits()?;
        if self.bytes[start] == b'0' && self.at - start > 1 {
            return None;
        }
        if self.peek() == b'.' {
            self.at += 1;
            self.digits()?;
        }
        if let b'e' | b'E' = self.peek() {
            self.at += 1;
            if let b'+' | b'-' = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Some(())
    }

    #[inline(always)]
    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn word<T>(&mut self, word: &str, value: T) -> Option<T> {
        if !self.bytes[self.at..].starts_with(word.as_bytes()) {
            return None;
        }
        self.at += word.len();
        Some(value)
    }
}

/// Sets the high bit of the lowest byte that is a quote, a backslash or a control character (and
/// perhaps of higher ones, which do not matter).
#[inline(always)]
pub(super) fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // A byte of x is zero exactly where the lowest set bit of this is (Hacker's Delight, 6-1).
    let zero = |x: u64| x.wrapping_sub(ONES) & !x & HIGH;
    let quote = zero(word ^ (ONES * b'"' as u64));
    let backslash = zero(word ^ (ONES * b'\\' as u64));
    let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
    quote | backslash | control
}
