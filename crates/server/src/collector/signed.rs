//! Codes of tiles in events: whether what a browser tells was served.

use crate::app::App;
use crate::mapping::lookup;
use crate::tiles::{Refusal, Tile};
use serde_json::Value as Json;

/// What was found in an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signed {
    /// The code of its tile.
    Good,
    /// None.
    Unsigned,
    /// One that is not believed.
    Bad(Refusal),
}

/// An item whose codes are looked at. It is read as a tree only where there may be a code.
pub(super) struct Codes<'i> {
    item: &'i [u8],
    /// The path of its list, where it has one.
    list: &'i [String],
    tree: Option<Json>,
}

impl<'i> Codes<'i> {
    pub(super) fn new(item: &'i [u8], list: &'i [String]) -> Self {
        Codes { item, list, tree: None }
    }

    fn may_have_some(&self) -> bool {
        memchr::memmem::find(self.item, b"\"code\"").is_some()
    }

    /// Of one event: its request id, video and time, and which element of the list it is.
    pub(super) fn check(
        &mut self,
        app: &App,
        (request_id, video, time_ms): (&str, &str, i64),
        element: usize,
    ) -> Signed {
        let Some(tiles) = &app.tiles else { return Signed::Unsigned };
        if !self.may_have_some() {
            return Signed::Unsigned;
        }
        let item = self.item;
        let tree = self.tree.get_or_insert_with(|| {
            // The decoder has read it before.
            serde_json::from_slice(item).unwrap_or(Json::Null)
        });
        let of_list = match self.list {
            [] => None,
            path => lookup(tree, path).and_then(|list| list.get(element)),
        };
        let field =
            |name: &str| of_list.and_then(|element| element.get(name)).or_else(|| tree.get(name));
        let code = match field("code") {
            None | Some(Json::Null) => return Signed::Unsigned,
            Some(code) => code,
        };
        let number = |name| field(name).and_then(Json::as_u64).and_then(|n| u32::try_from(n).ok());
        let (Some(code), Some(row), Some(position)) =
            (code.as_str(), number("row"), number("position"))
        else {
            return Signed::Bad(Refusal::Forged);
        };
        let tile = Tile { request_id, video, row, position };
        match tiles.check(tile, code, time_ms) {
            Ok(()) => Signed::Good,
            Err(refusal) => Signed::Bad(refusal),
        }
    }
}
