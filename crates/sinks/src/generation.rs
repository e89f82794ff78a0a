//! Generations: one version of what is counted. A store belongs to one for ever.

use crate::SinkError;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// What a process brings: its settings, and what to use if the generation is new.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Everything that decides what is counted, as JSON.
    pub settings: Json,
    /// Number of lanes; `None` takes that of the store, whatever it is.
    pub lanes: Option<u32>,
    /// Lengths of epochs, longest first.
    pub epochs_ms: Vec<i64>,
    /// Id for a new generation, never used before.
    pub new_id: String,
    /// Secret for a new generation, random.
    pub new_secret: [u8; 16],
}

/// What the store remembers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Generation {
    format: u32,
    /// Never used twice.
    pub id: String,
    /// Number of lanes.
    pub lanes: u32,
    epochs_ms: Vec<i64>,
    /// Random; keys the hashes of request ids and of hash tables.
    pub secret: [u8; 16],
    settings: Json,
}

impl Generation {
    /// A new one, in a layout of this version; `None` where the number of lanes is not known.
    pub(crate) fn new(identity: &Identity, format: u32) -> Option<Self> {
        Some(Generation {
            format,
            id: identity.new_id.clone(),
            lanes: identity.lanes?,
            epochs_ms: identity.epochs_ms.clone(),
            secret: identity.new_secret,
            settings: identity.settings.clone(),
        })
    }

    /// Lengths of epochs, longest first.
    pub fn epochs_ms(&self) -> &[i64] {
        &self.epochs_ms
    }

    /// What a store of this name has written in a layout of this version.
    pub(crate) fn of_json(bytes: &[u8], store: &str, expected: u32) -> Result<Self, SinkError> {
        let json: Json = serde_json::from_slice(bytes).unwrap_or_default();
        let path = store.to_owned();
        match json["format"].as_u64() {
            Some(found) if found != u64::from(expected) => {
                Err(SinkError::OtherFormat { path, found: found as u32, expected })
            }
            _ => serde_json::from_value(json).map_err(|e| SinkError::Damaged {
                path,
                what: format!("its generation is unreadable: {e}"),
            }),
        }
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data always serializes")
    }

    /// The generation of a store of this name, if the process counts as it does.
    pub(crate) fn checked(self, identity: &Identity, store: &str) -> Result<Self, SinkError> {
        let mut differences = Vec::new();
        let mut wanted = identity.settings.clone();
        match identity.lanes {
            Some(lanes) if lanes != self.lanes => {
                differences.push(format!("lanes is {lanes}, was {}", self.lanes));
            }
            _ => wanted["lanes"] = self.settings["lanes"].clone(),
        }
        compare("", &self.settings, &wanted, &mut differences);
        if differences.is_empty() {
            return Ok(self);
        }
        Err(SinkError::OtherGeneration {
            path: store.to_owned(),
            generation: self.id,
            difference: differences.join("; "),
        })
    }
}

/// Names every setting that differs, with both values.
fn compare(at: &str, stored: &Json, wanted: &Json, differences: &mut Vec<String>) {
    if stored == wanted {
        return;
    }
    let (Json::Object(one), Json::Object(other)) = (stored, wanted) else {
        differences.push(format!("{at} is {wanted}, was {stored}"));
        return;
    };
    let mut names: Vec<&String> = one.keys().chain(other.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let at = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
        let value = |object: &serde_json::Map<String, Json>| object.get(name).cloned();
        let (one, other) = (value(one).unwrap_or(Json::Null), value(other).unwrap_or(Json::Null));
        compare(&at, &one, &other, differences);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_are_named() {
        let stored = json!({"join": {"within": "1h", "early": "1m"}, "aggregate": ["30m"]});
        let wanted = json!({"join": {"within": "2h", "early": "1m"}, "aggregate": ["30m"]});
        let mut differences = Vec::new();
        compare("", &stored, &wanted, &mut differences);
        assert_eq!(differences, [r#"join.within is "2h", was "1h""#]);
    }
}
