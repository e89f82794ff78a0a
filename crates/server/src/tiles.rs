//! Tiles that were served: a short code says that this service has put a video in a place of a page,
//! under a request id, at a time. Nobody who lacks the secret can make one.
//!
//! ```text
//! code = base64url( key: 1 byte | served, ms since 1970: 6 bytes | first 16 bytes of the MAC )
//! MAC  = HMAC-SHA256(secret, "marquee tile 1" | key | served | row | position
//!                            | length and bytes of the request id | length and bytes of the video )
//! ```
//!
//! Numbers are big-endian, of 4 bytes where nothing else is said. `key` is made of the secret, so that
//! several secrets can be in force while one replaces another. 16 bytes of a MAC cannot be guessed
//! (NIST SP 800-107, 5.3.3). Whether a code is still good is judged by the time of its event: a phone
//! that was offline tells late what was seen in time.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

const CONTEXT: &[u8] = b"marquee tile 1";
const TIME_BYTES: usize = 6;
const MAC_BYTES: usize = 16;
const CODE_BYTES: usize = 1 + TIME_BYTES + MAC_BYTES;

/// How far the clock of a client may be behind: its event seems to be before the tile was served.
const BEHIND_MS: i64 = 60_000;

/// One place of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tile<'t> {
    pub(crate) request_id: &'t str,
    pub(crate) video: &'t str,
    pub(crate) row: u32,
    pub(crate) position: u32,
}

/// Why a code is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is not of this tile, or of nobody.
    Forged,
    /// It is of this tile, and the event is too late for it, or before it.
    Expired,
}

/// Signs tiles and looks at codes.
pub(crate) struct Tiles {
    /// The first one signs.
    keys: Vec<Key>,
    expires_ms: i64,
}

struct Key {
    name: u8,
    secret: hmac::Key,
}

impl Tiles {
    /// `None`: there are no secrets, so nothing is signed.
    pub(crate) fn new(secrets: &[String], expires_ms: i64) -> Option<Tiles> {
        let key = |secret: &String| {
            let secret = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
            let name = hmac::sign(&secret, b"marquee tile key").as_ref()[0];
            Key { name, secret }
        };
        let keys: Vec<Key> = secrets.iter().map(key).collect();
        (!keys.is_empty()).then_some(Tiles { keys, expires_ms })
    }

    /// The code of a tile that is served at a time, milliseconds since 1970 UTC.
    pub(crate) fn code(&self, tile: Tile<'_>, served_ms: i64) -> String {
        let key = &self.keys[0];
        let mut code = Vec::with_capacity(CODE_BYTES);
        code.push(key.name);
        code.extend_from_slice(&time_bytes(served_ms));
        code.extend_from_slice(&mac(key, tile, &code)[..MAC_BYTES]);
        URL_SAFE_NO_PAD.encode(code)
    }

    /// Whether a code is that of a tile, and an event of that time is in time for it.
    pub(crate) fn check(&self, tile: Tile<'_>, code: &str, event_ms: i64) -> Result<(), Refusal> {
        // Longer ones are not even decoded.
        let code = (code.len() <= 2 * CODE_BYTES).then_some(code).ok_or(Refusal::Forged)?;
        let code = URL_SAFE_NO_PAD.decode(code).map_err(|_| Refusal::Forged)?;
        if code.len() != CODE_BYTES {
            return Err(Refusal::Forged);
        }
        let (head, found) = code.split_at(1 + TIME_BYTES);
        let is_good = |key: &&Key| {
            let expected = mac(key, tile, head);
            key.name == head[0] && equal(&expected[..MAC_BYTES], found)
        };
        self.keys.iter().find(is_good).ok_or(Refusal::Forged)?;
        let mut time = [0; 8];
        time[8 - TIME_BYTES..].copy_from_slice(&head[1..]);
        let served_ms = i64::from_be_bytes(time);
        let is_in_time =
            event_ms >= served_ms - BEHIND_MS && event_ms <= served_ms + self.expires_ms;
        if is_in_time { Ok(()) } else { Err(Refusal::Expired) }
    }
}

fn time_bytes(time_ms: i64) -> [u8; TIME_BYTES] {
    let bytes = time_ms.to_be_bytes();
    let mut time = [0; TIME_BYTES];
    time.copy_from_slice(&bytes[8 - TIME_BYTES..]);
    time
}

fn mac(key: &Key, tile: Tile<'_>, head: &[u8]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&key.secret);
    context.update(CONTEXT);
    context.update(head);
    context.update(&tile.row.to_be_bytes());
    context.update(&tile.position.to_be_bytes());
    for text in [tile.request_id, tile.video] {
        context.update(&(text.len() as u32).to_be_bytes());
        context.update(text.as_bytes());
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.sign().as_ref());
    bytes
}

/// Takes as long whatever differs: how much of a guess is right must not show.
fn equal(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "an old secret of thirty-two bytes or more";
    const NEW: &str = "a newer secret of thirty-two bytes or more";
    const SERVED_MS: i64 = 1_479_688_200_123;
    const HOUR_MS: i64 = 3_600_000;
    const TILE: Tile<'_> = Tile { request_id: "r-1", video: "v", row: 3, position: 7 };

    fn tiles(secrets: &[&str]) -> Tiles {
        let secrets: Vec<String> = secrets.iter().map(|secret| (*secret).to_owned()).collect();
        Tiles::new(&secrets, HOUR_MS).expect("there are secrets")
    }

    #[test]
    fn a_code_is_of_one_tile() {
        let tiles = tiles(&[OLD]);
        let code = tiles.code(TILE, SERVED_MS);
        assert_eq!(code.len(), 31);
        // Told again, or a moment later, it is no other event.
        for event_ms in [SERVED_MS, SERVED_MS, SERVED_MS + 500] {
            assert_eq!(tiles.check(TILE, &code, event_ms), Ok(()));
        }
        for other in [
            Tile { request_id: "r-2", ..TILE },
            Tile { video: "w", ..TILE },
            Tile { row: 4, ..TILE },
            Tile { position: 8, ..TILE },
            // The same bytes, cut elsewhere.
            Tile { request_id: "r-1v", video: "", ..TILE },
        ] {
            assert_eq!(tiles.check(other, &code, SERVED_MS), Err(Refusal::Forged), "{other:?}");
        }
    }

    #[test]
    fn every_changed_letter_is_noticed() {
        let tiles = tiles(&[OLD]);
        let code = tiles.code(TILE, SERVED_MS);
        for place in 0..code.len() {
            let mut bytes = code.clone().into_bytes();
            bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).expect("it is ASCII");
            // The last letter has bits that say nothing: they must be zero.
            assert_eq!(tiles.check(TILE, &changed, SERVED_MS), Err(Refusal::Forged), "{place}");
        }
        for other in ["", "AAAA", &code[1..], &format!("{code}A"), "no code!", &"A".repeat(100_000)]
        {
            assert_eq!(tiles.check(TILE, other, SERVED_MS), Err(Refusal::Forged));
        }
    }

    #[test]
    fn the_time_of_the_event_decides() {
        let tiles = tiles(&[OLD]);
        let code = tiles.code(TILE, SERVED_MS);
        let check = |event_ms| tiles.check(TILE, &code, event_ms);
        assert_eq!(check(SERVED_MS + HOUR_MS), Ok(()));
        assert_eq!(check(SERVED_MS + HOUR_MS + 1), Err(Refusal::Expired));
        assert_eq!(check(SERVED_MS - BEHIND_MS), Ok(()));
        assert_eq!(check(SERVED_MS - BEHIND_MS - 1), Err(Refusal::Expired));
        for far in [i64::MIN / 2, i64::MAX / 2] {
            assert_eq!(check(far), Err(Refusal::Expired));
        }
    }

    #[test]
    fn a_secret_is_replaced_without_a_gap() {
        let (old, both, new) = (tiles(&[OLD]), tiles(&[NEW, OLD]), tiles(&[NEW]));
        let by_old = old.code(TILE, SERVED_MS);
        let by_new = both.code(TILE, SERVED_MS);
        assert_eq!(both.check(TILE, &by_old, SERVED_MS), Ok(()));
        assert_eq!(both.check(TILE, &by_new, SERVED_MS), Ok(()));
        assert_eq!(new.check(TILE, &by_new, SERVED_MS), Ok(()));
        assert_eq!(new.check(TILE, &by_old, SERVED_MS), Err(Refusal::Forged));
        assert_eq!(old.check(TILE, &by_new, SERVED_MS), Err(Refusal::Forged));
        assert!(Tiles::new(&[], HOUR_MS).is_none());
    }

    /// Codes are in pages that were served by another version.
    #[test]
    fn codes_never_change() {
        // The same by Python: hmac.digest(secret, b"marquee tile 1" + head + ..., "sha256")[:16].
        assert_eq!(tiles(&[OLD]).code(TILE, SERVED_MS), "gwFYhEofu3VSLxbq7608EEHqmOFSr50");
    }
}
