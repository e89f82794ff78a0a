//! An event -> its bytes, about 150 of them.
//!
//! Written by hand: the bytes are a promise, and no field needs escaping.

use marquee_model::Kind;

const COUNTRIES: [&str; 10] = ["US", "GB", "BR", "MX", "DE", "FR", "JP", "KR", "IN", "CA"];
const DEVICES: [&str; 5] = ["tv", "phone", "tablet", "web", "console"];

/// A video shown to an invented member, or played by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedEvent {
    pub(super) kind: Kind,
    pub(super) request_id: [u8; 16],
    pub(super) event_time_ms: i64,
    /// The id as a number, or a place in the list of names of [`LiveMembers`](super::LiveMembers).
    pub(super) video: u32,
    /// A place in `COUNTRIES`.
    pub(super) country: u8,
    /// A place in `DEVICES`.
    pub(super) device: u8,
    pub(super) row: u8,
    /// From the left of the row, from 0 on.
    pub(super) position: u8,
    /// Only of a play: how long it lasted.
    pub(super) duration_s: u16,
}

impl GeneratedEvent {
    /// Whether it goes to the impressions or to the plays.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// When it happened, milliseconds since 1970 UTC.
    pub fn event_time_ms(&self) -> i64 {
        self.event_time_ms
    }

    /// The request id as the JSON has it: the key of a record in a log.
    pub fn request_id(&self) -> String {
        let mut text = Vec::with_capacity(36);
        write_uuid(&self.request_id, &mut text);
        text.into_iter().map(char::from).collect()
    }

    /// Appends the event as one JSON object, without a line feed.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        self.write_json_with_video(Digits::of(u64::from(self.video)).as_bytes(), out);
    }

    /// The same with another text for the video, which must not need escaping.
    pub(super) fn write_json_with_video(&self, video_id: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"request_id\":\"");
        write_uuid(&self.request_id, out);
        out.extend_from_slice(b"\",\"video_id\":\"");
        out.extend_from_slice(video_id);
        out.extend_from_slice(b"\",\"ts\":");
        write_number(self.event_time_ms as u64, out);
        out.extend_from_slice(b",\"country\":\"");
        out.extend_from_slice(COUNTRIES[usize::from(self.country)].as_bytes());
        out.extend_from_slice(b"\",\"device\":\"");
        out.extend_from_slice(DEVICES[usize::from(self.device)].as_bytes());
        match self.kind {
            Kind::Impression => {
                out.extend_from_slice(b"\",\"row\":");
                write_number(u64::from(self.row), out);
                out.extend_from_slice(b",\"position\":");
                write_number(u64::from(self.position), out);
            }
            Kind::Play => {
                out.extend_from_slice(b"\",\"duration_s\":");
                write_number(u64::from(self.duration_s), out);
            }
        }
        out.push(b'}');
    }
}

fn write_uuid(bytes: &[u8; 16], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (place, byte) in bytes.iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 0x0f)]);
    }
}

fn write_number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(Digits::of(number).as_bytes());
}

/// A number in decimal.
struct Digits {
    /// Filled from the end; 20 digits hold every number of 64 bits.
    digits: [u8; 20],
    from: usize,
}

impl Digits {
    fn of(mut number: u64) -> Self {
        let mut text = Digits { digits: [b'0'; 20], from: 20 };
        loop {
            text.from -= 1;
            text.digits[text.from] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return text;
            }
        }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.digits[self.from..]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that fails may panic")]
mod tests {
    use super::*;

    fn event(kind: Kind) -> GeneratedEvent {
        GeneratedEvent {
            kind,
            request_id: 0x0123456789ab4def8123456789abcdef_u128.to_be_bytes(),
            event_time_ms: 1_479_686_400_000,
            video: 80_000_001,
            country: 0,
            device: 4,
            row: 0,
            position: 12,
            duration_s: 7_199,
        }
    }

    fn check(event: GeneratedEvent, expected: &str) {
        let mut out = Vec::new();
        event.write_json(&mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn the_bytes_of_an_event() {
        check(
            event(Kind::Impression),
            "{\"request_id\":\"01234567-89ab-4def-8123-456789abcdef\",\"video_id\":\"80000001\",\
             \"ts\":1479686400000,\"country\":\"US\",\"device\":\"console\",\"row\":0,\
             \"position\":12}",
        );
        check(
            event(Kind::Play),
            "{\"request_id\":\"01234567-89ab-4def-8123-456789abcdef\",\"video_id\":\"80000001\",\
             \"ts\":1479686400000,\"country\":\"US\",\"device\":\"console\",\"duration_s\":7199}",
        );
    }

    #[test]
    fn numbers_of_any_size() {
        for number in [0, 9, 10, u64::MAX] {
            assert_eq!(Digits::of(number).as_bytes(), number.to_string().as_bytes());
        }
    }
}
