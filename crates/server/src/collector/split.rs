//! Cuts an item whose exploded elements belong to several lanes: one record for each lane, with
//! the elements of that lane. A request's events must all be in its lane, or they never meet.

use crate::mapping::lookup_mut;
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// The item once for each lane, with only that lane's elements in the list at `path`. `lanes` are
/// those of the elements, in their order. `budget` bytes may be used, and are taken from it.
///
/// # Errors
/// Why it cannot be cut.
pub(super) fn split(
    item: &[u8],
    path: &[String],
    lanes: &[u32],
    budget: &mut usize,
) -> Result<Vec<(u32, Vec<u8>)>, String> {
    let unknown = || "its elements belong to several lanes, and it cannot be cut".to_owned();
    let mut record: Json = serde_json::from_slice(item).map_err(|_| unknown())?;
    let list = lookup_mut(&mut record, path).map(Json::take);
    let Some(Json::Array(elements)) = list.filter(|list| count(list) == lanes.len()) else {
        return Err(unknown());
    };
    let mut parts: BTreeMap<u32, Vec<Json>> = BTreeMap::new();
    for (element, lane) in elements.into_iter().zip(lanes) {
        parts.entry(*lane).or_default().push(element);
    }
    let mut records = Vec::with_capacity(parts.len());
    for (lane, elements) in parts {
        *lookup_mut(&mut record, path).ok_or_else(unknown)? = Json::Array(elements);
        let bytes = serde_json::to_vec(&record).map_err(|_| unknown())?;
        *budget = budget.checked_sub(bytes.len()).ok_or_else(too_often)?;
        records.push((lane, bytes));
    }
    Ok(records)
}

fn count(list: &Json) -> usize {
    list.as_array().map_or(0, Vec::len)
}

fn too_often() -> String {
    "its elements belong to many lanes, and what they share would be written too often; send \
     records of one request id each"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lane_gets_its_elements_and_all_that_they_share() {
        let item = br#"{ "z": 1.50, "a": {"l": [ {"r":"x"}, 7, {"r":"\u0000"} ]}, "n": 18446744073709551615 }"#;
        let path = ["a".to_owned(), "l".to_owned()];
        let records = split(item, &path, &[3, 0, 3], &mut 1000).expect("it can be cut");
        let text = |i: usize| str::from_utf8(&records[i].1).expect("JSON is text");
        assert_eq!(records.len(), 2);
        assert_eq!((records[0].0, records[1].0), (0, 3));
        assert_eq!(text(0), r#"{"z":1.5,"a":{"l":[7]},"n":18446744073709551615}"#);
        assert_eq!(
            text(1),
            r#"{"z":1.5,"a":{"l":[{"r":"x"},{"r":"\u0000"}]},"n":18446744073709551615}"#
        );
        assert!(split(item, &path, &[3, 0], &mut 1000).is_err());
        assert!(split(item, &path, &[3, 0, 3], &mut 60).is_err());
    }
}
