//! Reads the fields that a mapping names out of a JSON object, in one pass and without building a
//! tree.

use super::{not_json, scan};
use marquee_pipeline::prepare::DeadReason;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value as Json;
use smallvec::SmallVec;
use std::borrow::Cow;
use std::fmt;

/// A field as it stands in the record.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raw<'a> {
    Missing,
    Null,
    Bool(bool),
    Int(i64),
    /// A whole number above `i64::MAX`.
    Large(u64),
    Double(f64),
    String(Cow<'a, str>),
    List,
    Object,
}

impl<'a> Raw<'a> {
    /// How messages call it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Raw::Missing => "missing",
            Raw::Null => "null",
            Raw::Bool(_) => "a boolean",
            Raw::Int(_) | Raw::Large(_) => "a whole number",
            Raw::Double(_) => "a number with a fraction",
            Raw::String(_) => "a text",
            Raw::List => "a list",
            Raw::Object => "an object",
        }
    }

    pub(super) fn of_tree(value: Option<&'a Json>) -> Self {
        match value {
            None => Raw::Missing,
            Some(Json::Null) => Raw::Null,
            Some(Json::Bool(value)) => Raw::Bool(*value),
            Some(Json::String(text)) => Raw::String(Cow::Borrowed(text)),
            Some(Json::Array(_)) => Raw::List,
            Some(Json::Object(_)) => Raw::Object,
            Some(Json::Number(number)) => Raw::of_number(number),
        }
    }

    pub(super) fn of_number(number: &serde_json::Number) -> Self {
        match (number.as_i64(), number.as_u64()) {
            (Some(int), _) => Raw::Int(int),
            (None, Some(large)) => Raw::Large(large),
            (None, None) => Raw::Double(number.as_f64().unwrap_or(f64::NAN)),
        }
    }
}

/// All fields of one record, by slot.
pub(super) type Raws<'a> = SmallVec<[Raw<'a>; 8]>;

/// The tree of all named paths.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    pub(super) root: Node,
    slots: usize,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    /// The slots that want the value here.
    slots: SmallVec<[usize; 2]>,
    /// Few, so that a linear search is the fastest.
    children: Vec<Child>,
}

/// A field that somebody wants something of.
#[derive(Clone, Debug)]
struct Child {
    name: Box<str>,
    /// The first eight bytes of the name, as [`first_word`] reads them.
    word: u64,
    node: Node,
}

/// Up to eight bytes of a name as a number, so that most names are compared at once.
#[inline(always)]
fn first_word(bytes: &[u8], start: usize, end: usize) -> u64 {
    let len = end - start;
    match bytes.get(start..).and_then(|rest| rest.first_chunk::<8>()) {
        Some(chunk) if len >= 8 => u64::from_le_bytes(*chunk),
        Some(chunk) => u64::from_le_bytes(*chunk) & ((1 << (8 * len)) - 1),
        None => {
            let mut word = [0; 8];
            let len = len.min(8);
            word[..len].copy_from_slice(&bytes[start..start + len]);
            u64::from_le_bytes(word)
        }
    }
}

impl Fields {
    /// Slot `i` is that of the `i`-th path.
    pub(super) fn new<'p>(paths: impl Iterator<Item = &'p super::Path>) -> Self {
        let mut fields = Fields { root: Node::default(), slots: 0 };
        for path in paths {
            let node = path.iter().fold(&mut fields.root, |node, name| node.child(name));
            node.slots.push(fields.slots);
            fields.slots += 1;
        }
        fields
    }

    /// Reads an ordinary record.
    pub(super) fn scan<'a>(&self, record: &'a str) -> Option<Raws<'a>> {
        let mut raws: Raws<'a> = SmallVec::from_elem(Raw::Missing, self.slots);
        scan::read(record, &self.root, &mut raws)?;
        Some(raws)
    }

    /// Reads a record that is not ordinary, or not even valid. A field that is there twice has its
    /// last value.
    #[cold]
    pub(super) fn read_any<'a>(&self, record: &'a [u8]) -> Result<Raws<'a>, DeadReason> {
        let mut raws: Raws<'a> = SmallVec::from_elem(Raw::Missing, self.slots);
        let mut json = serde_json::Deserializer::from_slice(record);
        let object = Object { node: &self.root, raws: &mut raws };
        json.deserialize_map(object).and_then(|()| json.end()).map_err(|e| not_json(&e))?;
        Ok(raws)
    }
}

impl Node {
    fn child(&mut self, name: &str) -> &mut Node {
        let place = match self.children.iter().position(|child| *child.name == *name) {
            Some(place) => place,
            None => {
                let word = first_word(name.as_bytes(), 0, name.len());
                self.children.push(Child { name: name.into(), word, node: Node::default() });
                self.children.len() - 1
            }
        };
        &mut self.children[place].node
    }

    /// The slots that want the value here, of all paths.
    pub(super) fn slots(&self) -> &[usize] {
        &self.slots
    }

    /// The child whose name stands in `bytes` from `start` to `end`. `expected` is where it is
    /// looked for first: records tend to name their fields in the same order.
    #[inline(always)]
    pub(super) fn find(
        &self,
        bytes: &[u8],
        start: usize,
        end: usize,
        expected: &mut usize,
    ) -> Option<&Node> {
        let word = first_word(bytes, start, end);
        for _ in 0..self.children.len() {
            let place = if *expected < self.children.len() { *expected } else { 0 };
            let child = &self.children[place];
            *expected = place + 1;
            if child.word == word
                && child.name.len() == end - start
                && (end - start <= 8 || *child.name.as_bytes() == bytes[start..end])
            {
                return Some(&child.node);
            }
        }
        None
    }

    #[inline]
    pub(super) fn forget_children(&self, raws: &mut Raws<'_>) {
        for child in &self.children {
            child.node.set(raws, Raw::Missing);
            child.node.forget_children(raws);
        }
    }

    #[inline]
    pub(super) fn set<'a>(&self, raws: &mut Raws<'a>, raw: Raw<'a>) {
        if let [slot] = self.slots[..] {
            raws[slot] = raw;
            return;
        }
        for slot in &self.slots {
            raws[*slot] = raw.clone();
        }
    }
}

/// Reads an object, whose fields are the children of a node.
struct Object<'n, 'r, 'a> {
    node: &'n Node,
    raws: &'r mut Raws<'a>,
}

impl<'de> Visitor<'de> for Object<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    #[inline]
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(child) = map.next_key_seed(Name { node: self.node })? {
            match child {
                Some(node) => {
                    // A field that is there twice has its last value, with all that is below it.
                    node.forget_children(self.raws);
                    map.next_value_seed(Field { node, raws: &mut *self.raws })?;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Finds the child for a field's name.
struct Name<'n> {
    node: &'n Node,
}

impl<'de, 'n> DeserializeSeed<'de> for Name<'n> {
    type Value = Option<&'n Node>;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        d.deserialize_str(self)
    }
}

impl<'n> Visitor<'_> for Name<'n> {
    type Value = Option<&'n Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    #[inline]
    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.node.children.iter().find(|child| *child.name == *name).map(|child| &child.node))
    }
}

/// Reads the value of a field.
struct Field<'n, 'r, 'a> {
    node: &'n Node,
    raws: &'r mut Raws<'a>,
}

impl<'de> DeserializeSeed<'de> for Field<'_, '_, 'de> {
    type Value = ();

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Field<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    #[inline]
    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<(), E> {
        self.node.set(self.raws, Raw::String(Cow::Borrowed(text)));
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.node.set(self.raws, Raw::String(Cow::Owned(text.to_owned())));
        Ok(())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.node.set(self.raws, Raw::Int(number));
        Ok(())
    }

    #[inline]
    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        let raw = i64::try_from(number).map_or(Raw::Large(number), Raw::Int);
        self.node.set(self.raws, raw);
        Ok(())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        self.node.set(self.raws, Raw::Double(number));
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.node.set(self.raws, Raw::Bool(value));
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.node.set(self.raws, Raw::Null);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        self.node.set(self.raws, Raw::List);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.node.set(self.raws, Raw::Object);
        Object { node: self.node, raws: self.raws }.visit_map(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fields() -> Fields {
        let path = |text: &str| text.split('.').map(str::to_owned).collect::<super::super::Path>();
        Fields::new(["r", "v", "t", "c.r", "c.d.e", "r"].map(path).iter())
    }

    /// What the scanner accepts, serde_json reads in the same way.
    fn check(record: &[u8]) {
        let fields = fields();
        let mut raws: Raws<'_> = SmallVec::from_elem(Raw::Missing, fields.slots);
        let Ok(text) = std::str::from_utf8(record) else { return };
        if scan::read(text, &fields.root, &mut raws).is_some() {
            assert_eq!(fields.read_any(record), Ok(raws), "{text}");
        }
    }

    #[test]
    fn ordinary_records_are_scanned() {
        let record = r#"{"r":"a","x":[1.5e3,{"y":null}],"t":-12,"c":{"r":true,"d":{"e":"f"}}}"#;
        let fields = fields();
        let mut raws: Raws<'_> = SmallVec::from_elem(Raw::Missing, fields.slots);
        assert!(scan::read(record, &fields.root, &mut raws).is_some());
        assert_eq!(raws[2], Raw::Int(-12));
        assert_eq!(raws[4], Raw::String(Cow::Borrowed("f")));
        check(record.as_bytes());
    }

    #[test]
    fn odd_ones_are_left_to_the_judge() {
        for record in [
            "{\"t\":01}",
            "{\"t\":-}",
            "{\"t\":-0}",
            "{\"t\":1.0}",
            "{\"t\":1e3}",
            "{\"x\":01}",
            "{\"x\":1.}",
            "{\"x\":1e}",
            "{\"t\":9999999999999999999}",
            "{\"t\":-9223372036854775808}",
            "{\"r\":\"a\\n\"}",
            "{\"r\":\"a\u{1}\"}",
            "{\"r\":\"\u{7f}é\"}",
            "{\"r\":1,}",
            "{,}",
            "{\"r\"}",
            "{}",
            "{} x",
            "{\"r\":tru}",
            "{\"r\":truex}",
            "{\"c\":{\"r\":1},\"c\":2}",
            "{\"c\":1,\"c\":{}}",
            "{\"r\":[1]}",
            "{\"x\":[1,]}",
            "{\"x\":[}",
            "{\"c\":[{\"r\":1}]}",
            "[",
            "\"",
            "",
        ] {
            check(record.as_bytes());
        }
    }

    /// Texts that are nearly JSON, so that many are valid.
    fn nearly_json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            Just("fals".to_owned()),
            "-?[0-9]{0,20}",
            "-?[0-9]{1,3}\\.[0-9]{0,2}",
            "[0-9]e[+-]?[0-9]{0,2}",
            "\"[a-zé\\x01\\x7f\\\\n ]{0,20}\"",
            "\"\\\\u00[0-9]{2}\"",
        ];
        leaf.prop_recursive(4, 24, 5, |inner| {
            let name = prop_oneof![
                Just("r"),
                Just("v"),
                Just("t"),
                Just("c"),
                Just("d"),
                Just("e"),
                Just("x")
            ];
            let field =
                (name, inner.clone()).prop_map(|(name, value)| format!("\"{name}\" : {value}"));
            prop_oneof![
                proptest::collection::vec(field, 0..5).prop_map(|f| format!("{{{}}}", f.join(","))),
                proptest::collection::vec(inner, 0..4).prop_map(|v| format!("[{}]", v.join(" ,"))),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]

        #[test]
        fn the_scanner_agrees_with_serde_json(record in nearly_json(), cut in 0_usize..200) {
            check(record.as_bytes());
            check(&record.as_bytes()[..cut.min(record.len())]);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(record: Vec<u8>) {
            check(&record);
        }
    }
}
