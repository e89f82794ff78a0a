//! The frames that a snapshot is made of, and the numbers and texts in them.
//!
//! A frame is its kind (1 byte), the length of its content (4 bytes, little-endian), the content,
//! and a CRC-32 of all that since the beginning of the snapshot: so each checksum proves its frame
//! and everything before it. Whole records only: a frame is read without the next one.

use super::SnapshotError;
use marquee_model::RequestKey;

/// A frame is closed when its content has so many bytes.
const CLOSES_AT: usize = 256 << 10;
/// No frame is longer: the longest record are the values of one tuple, far below this.
const MAX_BYTES: usize = 8 << 20;
/// Kind and length, and the checksum behind the content.
const AROUND: usize = 1 + 4 + 4;

/// Collects records into frames.
pub(super) struct FrameWriter<W> {
    write: W,
    crc: crc32fast::Hasher,
    kind: u8,
    /// Kind, length and content of the open frame.
    frame: Vec<u8>,
    written: u64,
}

impl<E, W: FnMut(&[u8]) -> Result<(), E>> FrameWriter<W> {
    /// Begins with bytes that belong to no frame, but to the checksums.
    pub(super) fn new(preamble: &[u8], mut write: W) -> Result<Self, E> {
        let mut crc = crc32fast::Hasher::new();
        crc.update(preamble);
        write(preamble)?;
        let written = preamble.len() as u64;
        Ok(FrameWriter { write, crc, kind: 0, frame: Vec::new(), written })
    }

    /// Bytes of all frames that are closed.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Opens a frame.
    pub(super) fn open(&mut self, kind: u8) {
        self.kind = kind;
        self.frame.clear();
        self.frame.extend_from_slice(&[kind, 0, 0, 0, 0]);
    }

    /// Where a record is written.
    #[inline]
    pub(super) fn content(&mut self) -> &mut Vec<u8> {
        &mut self.frame
    }

    /// Whether the open frame is large enough to be closed.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.frame.len() >= CLOSES_AT
    }

    /// Closes the open frame.
    pub(super) fn close(&mut self) -> Result<(), E> {
        let bytes = self.frame.len() - 5;
        debug_assert!(bytes <= MAX_BYTES, "records are short");
        self.frame[1..5].copy_from_slice(&(bytes as u32).to_le_bytes());
        self.crc.update(&self.frame);
        let crc = self.crc.clone().finalize();
        self.frame.extend_from_slice(&crc.to_le_bytes());
        self.written += self.frame.len() as u64;
        (self.write)(&self.frame)
    }
}

/// Takes frames apart: bytes go in as they come, whole frames that check come out.
pub(super) struct FrameReader {
    crc: crc32fast::Hasher,
    preamble: usize,
    /// What is not used up begins at `at`.
    bytes: Vec<u8>,
    at: usize,
    read: u64,
}

impl FrameReader {
    pub(super) fn new(preamble: usize) -> Self {
        let crc = crc32fast::Hasher::new();
        FrameReader { crc, preamble, bytes: Vec::new(), at: 0, read: 0 }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.bytes.drain(..std::mem::take(&mut self.at));
        self.bytes.extend_from_slice(bytes);
    }

    /// The bytes before the first frame, once; `None` while they are not there.
    pub(super) fn preamble(&mut self) -> Option<&[u8]> {
        let preamble = self.bytes.get(self.at..self.at + self.preamble)?;
        self.crc.update(preamble);
        self.at += self.preamble;
        self.read += self.preamble as u64;
        Some(preamble)
    }

    /// The next frame's kind and content; `None` while it is not there as a whole.
    pub(super) fn next(&mut self) -> Result<Option<(u8, &[u8])>, SnapshotError> {
        let rest = &self.bytes[self.at..];
        let Some((head, _)) = rest.split_first_chunk::<5>() else { return Ok(None) };
        let [kind, length @ ..] = *head;
        let bytes = u32::from_le_bytes(length) as usize;
        if bytes > MAX_BYTES {
            return Err(SnapshotError::Damaged("a frame is too long"));
        }
        let Some(frame) = rest.get(..bytes + AROUND) else { return Ok(None) };
        let (checked, crc) = frame.split_at(bytes + 5);
        self.crc.update(checked);
        if self.crc.clone().finalize().to_le_bytes() != crc {
            return Err(SnapshotError::Damaged("a checksum is wrong"));
        }
        self.at += frame.len();
        self.read += frame.len() as u64;
        Ok(Some((kind, &checked[5..])))
    }

    /// Bytes before the end of the last frame that was given out.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    /// Whether there is something behind that frame.
    pub(super) fn has_more(&self) -> bool {
        self.at < self.bytes.len()
    }
}

/// A number, LEB128.
#[inline]
pub(super) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A signed number, small ones of either sign in few bytes.
#[inline]
pub(super) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put(out, ((number << 1) ^ (number >> 63)) as u64);
}

/// A number that may be missing.
pub(super) fn put_option(out: &mut Vec<u8>, number: Option<i64>) {
    out.push(u8::from(number.is_some()));
    put_signed(out, number.unwrap_or_default());
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put(out, text.len() as u64);
    out.extend_from_slice(text);
}

pub(super) fn put_request(out: &mut Vec<u8>, request: RequestKey) {
    out.extend_from_slice(&request.0.to_le_bytes());
}

/// Reads what the `put`s wrote.
pub(super) struct Content<'a>(pub(super) &'a [u8]);

const SHORT: SnapshotError = SnapshotError::Damaged("a record is cut off");

impl<'a> Content<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[inline]
    pub(super) fn number(&mut self) -> Result<u64, SnapshotError> {
        let mut number = 0_u64;
        for shift in (0..70).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(SHORT)?;
            self.0 = rest;
            if shift == 63 && byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(SnapshotError::Damaged("a number is too large"))
    }

    /// A number below a bound.
    #[inline]
    pub(super) fn below(&mut self, bound: u64) -> Result<u64, SnapshotError> {
        let number = self.number()?;
        (number < bound).then_some(number).ok_or(SnapshotError::Damaged("a number is out of range"))
    }

    #[inline]
    pub(super) fn signed(&mut self) -> Result<i64, SnapshotError> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    pub(super) fn option(&mut self) -> Result<Option<i64>, SnapshotError> {
        let is_there = self.below(2)? == 1;
        Ok(Some(self.signed()?).filter(|_| is_there))
    }

    pub(super) fn text(&mut self) -> Result<&'a [u8], SnapshotError> {
        let length = usize::try_from(self.number()?).map_err(|_| SHORT)?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(SHORT)?;
        self.0 = rest;
        Ok(text)
    }

    #[inline]
    pub(super) fn request(&mut self) -> Result<RequestKey, SnapshotError> {
        let (bytes, rest) = self.0.split_first_chunk::<16>().ok_or(SHORT)?;
        self.0 = rest;
        Ok(RequestKey(u128::from_le_bytes(*bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_and_texts_read_as_written(
            number: u64,
            signed: i64,
            option: Option<i64>,
            text: Vec<u8>,
            request: u128,
        ) {
            let mut out = Vec::new();
            put(&mut out, number);
            put_signed(&mut out, signed);
            put_option(&mut out, option);
            put_text(&mut out, &text);
            put_request(&mut out, RequestKey(request));
            let mut content = Content(&out);
            prop_assert_eq!(content.number(), Ok(number));
            prop_assert_eq!(content.signed(), Ok(signed));
            prop_assert_eq!(content.option(), Ok(option));
            prop_assert_eq!(content.text(), Ok(&text[..]));
            prop_assert_eq!(content.request(), Ok(RequestKey(request)));
            prop_assert!(content.is_empty());
        }

        #[test]
        fn any_bytes_end_in_an_error_or_a_value(bytes: Vec<u8>) {
            let mut content = Content(&bytes);
            while !content.is_empty() && content.signed().is_ok() && content.text().is_ok() {}
        }
    }
}
