//! Reads the fields that a mapping names out of a JSON object, in one pass and without building a
//! tree.

use super::not_json;
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
            Some(Json::Number(number)) => match (number.as_i64(), number.as_u64()) {
                (Some(int), _) => Raw::Int(int),
                (None, Some(large)) => Raw::Large(large),
                (None, None) => Raw::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
        }
    }
}

/// All fields of one record, by slot.
pub(super) type Raws<'a> = SmallVec<[Raw<'a>; 8]>;

/// The tree of all named paths.
#[derive(Clone, Debug)]
pub(super) struct Fields {
    root: Node,
    slots: usize,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// The slots that want the value here.
    slots: SmallVec<[usize; 2]>,
    /// Few, so that a linear search is the fastest.
    children: Vec<(Box<str>, Node)>,
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

    /// Reads one record. A field that is there twice has its last value.
    #[inline]
    pub(super) fn read<'a>(&self, record: &'a [u8]) -> Result<Raws<'a>, DeadReason> {
        let mut raws: Raws<'a> = SmallVec::from_elem(Raw::Missing, self.slots);
        let mut json = serde_json::Deserializer::from_slice(record);
        let object = Object { node: &self.root, raws: &mut raws };
        json.deserialize_map(object).and_then(|()| json.end()).map_err(|e| not_json(&e))?;
        Ok(raws)
    }
}

impl Node {
    fn child(&mut self, name: &str) -> &mut Node {
        let place = match self.children.iter().position(|(n, _)| **n == *name) {
            Some(place) => place,
            None => {
                self.children.push((name.into(), Node::default()));
                self.children.len() - 1
            }
        };
        &mut self.children[place].1
    }

    #[inline]
    fn forget_children(&self, raws: &mut Raws<'_>) {
        for (_, child) in &self.children {
            child.set(raws, Raw::Missing);
            child.forget_children(raws);
        }
    }

    fn set<'a>(&self, raws: &mut Raws<'a>, raw: Raw<'a>) {
        if let Some((last, others)) = self.slots.split_last() {
            for slot in others {
                raws[*slot] = raw.clone();
            }
            raws[*last] = raw;
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
        Ok(self.node.children.iter().find(|(n, _)| **n == *name).map(|(_, node)| node))
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
