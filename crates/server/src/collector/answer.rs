//! How it went, item by item.

use crate::problem::Problem;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

/// Rejected items that an answer lists; the others are only counted.
const LISTED_MAX: usize = 1000;

/// Reasons may quote what a client sent: they are cut to this many characters.
const REASON_CHARACTERS: usize = 400;

/// What the client is told. Items are numbered from 0 in the order of the body.
#[derive(Debug, Default, Serialize)]
pub(super) struct Answer {
    pub(super) accepted: u64,
    rejected: Vec<Rejected>,
    /// All that were rejected, listed or not.
    pub(super) rejected_count: u64,
    /// For each lane that got any: what it has to have read to have counted all of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    positions: Vec<Place>,
}

/// How far a lane must have read.
#[derive(Debug, Serialize)]
pub(super) struct Place {
    pub(super) topic: String,
    pub(super) lane: u32,
    /// The next offset after what was appended.
    pub(super) offset: u64,
}

#[derive(Debug, Serialize)]
struct Rejected {
    index: u64,
    reason: String,
}

impl Answer {
    pub(super) fn accept(&mut self) {
        self.accepted += 1;
    }

    /// Where something of it was appended.
    pub(super) fn stands_at(&mut self, place: Place) {
        match self.positions.iter_mut().find(|known| known.lane == place.lane) {
            Some(known) => known.offset = known.offset.max(place.offset),
            None => self.positions.push(place),
        }
    }

    pub(super) fn reject(&mut self, mut reason: String) {
        let index = self.accepted + self.rejected_count;
        self.rejected_count += 1;
        if self.rejected.len() == LISTED_MAX {
            return;
        }
        if let Some((end, _)) = reason.char_indices().nth(REASON_CHARACTERS) {
            reason.truncate(end);
            reason.push('…');
        }
        self.rejected.push(Rejected { index, reason });
    }

    fn none_accepted(&self) -> Problem {
        let detail = match self.rejected_count {
            0 => {
                "The body holds no event. Send an object, an array of objects, or one object on \
                 each line."
            }
            _ => {
                "No item was accepted, and nothing was written. The reason of each is in \
                 `rejected`: correct them and send them again."
            }
        };
        Problem::new(StatusCode::BAD_REQUEST, detail).with(json!(self))
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = match (self.accepted, self.rejected_count) {
            (0, _) => return self.none_accepted().into_response(),
            (_, 0) => StatusCode::ACCEPTED,
            (_, _) => StatusCode::MULTI_STATUS,
        };
        (status, Json(self)).into_response()
    }
}
