//! The fields of a mapping as columns: what [`super::fields`] is for JSON, for rows of Parquet.
//!
//! A row gives what its JSON object would give, field by field, without making text of it. Rows are
//! decoded in blocks, each block column by column: so what a column is made of is asked once a
//! block and not in every row.

use super::Path;
use super::fields::Raw;
use super::typed::Wanted;
use crate::files::has_json;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array,
    LargeStringArray, StringArray, StringViewArray, StructArray, UInt64Array,
};
use arrow_schema::{DataType, TimeUnit};
use marquee_expr::Value;
use marquee_pipeline::prepare::{REQUEST_ID, VIDEO};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// Rows that are decoded together: their values stay in the first-level cache, and a bit for each
/// fits into a word.
pub(super) const BLOCK: usize = 32;

/// The values of the rows of a block, row after row.
pub(super) struct Block<'a> {
    values: Vec<Value<'a>>,
    width: usize,
}

impl<'a> Block<'a> {
    /// A block of rows that are all alike.
    pub(super) fn of(row: &[Value<'a>]) -> Self {
        Block {
            values: row.iter().cycle().take(BLOCK * row.len()).cloned().collect(),
            width: row.len(),
        }
    }

    /// Fills one slot of as many rows as are wanted, and gives those that have no value as bits;
    /// their slots stay as they were. By place: pairs of iterators cost a quarter more here.
    #[inline(always)]
    fn fill(
        &mut self,
        slot: usize,
        rows: Range<usize>,
        value: impl Fn(usize) -> Option<Value<'a>>,
    ) -> u32 {
        let mut bad = 0;
        for (place, values) in self.values.chunks_exact_mut(self.width).enumerate() {
            if place == rows.len() {
                break;
            }
            match value(rows.start + place) {
                Some(value) => values[slot] = value,
                None => bad |= 1 << place,
            }
        }
        bad
    }

    /// The values of each row.
    pub(super) fn rows(&self) -> impl Iterator<Item = &[Value<'a>]> {
        self.values.chunks_exact(self.width)
    }
}

/// The fields of a mapping in some rows.
pub struct Columns {
    /// By the order of the mapping's paths; `None` for what no row has.
    pub(super) columns: Vec<Column>,
    pub(super) rows: usize,
}

impl Columns {
    /// Finds the fields that paths name; `None` stands for one that no row has.
    pub(super) fn find<'p>(
        rows: &StructArray,
        paths: impl Iterator<Item = Option<&'p Path>>,
    ) -> Self {
        let find =
            |path: Option<&Path>| path.map_or_else(Column::missing, |p| Column::find(rows, p));
        Columns { columns: paths.map(find).collect(), rows: rows.len() }
    }

    /// The request ids, if they are words of a dictionary.
    pub fn request_ids(&self) -> Option<&Words> {
        self.columns[REQUEST_ID].words()
    }

    /// The video ids, before any transform, if they are words of a dictionary.
    pub fn videos(&self) -> Option<&Words> {
        self.columns[VIDEO].words()
    }
}

/// Texts that rows have by their place in a dictionary: whoever asks for something that follows
/// from the text alone can ask once a word.
#[derive(Clone)]
pub struct Words {
    places: Int32Array,
    texts: StringArray,
    /// The same as `texts`: it tells whether two dictionaries are one.
    dictionary: ArrayRef,
}

impl Words {
    fn of(column: &ArrayRef) -> Self {
        let column = column.as_dictionary::<Int32Type>();
        Words {
            places: column.keys().clone(),
            texts: column.values().as_string::<i32>().clone(),
            dictionary: column.values().clone(),
        }
    }

    /// How many words the dictionary has.
    pub fn count(&self) -> usize {
        self.texts.len()
    }

    /// Whether the places of others mean the same words. Of two equal dictionaries this is not
    /// asked: they count as different.
    pub fn share_dictionary(&self, others: &Words) -> bool {
        Arc::ptr_eq(&self.dictionary, &others.dictionary)
    }

    /// The place of a row's word, unless it is null. None is below 0: arrays are checked.
    #[inline]
    pub fn place(&self, row: usize) -> Option<usize> {
        self.places.is_valid(row).then(|| self.places.value(row) as usize)
    }

    /// The text of a row, unless it is null.
    #[inline]
    fn text(&self, row: usize) -> Option<&str> {
        let place = self.place(row)?;
        self.texts.is_valid(place).then(|| self.texts.value(place))
    }

    /// Where no row is null and no word is.
    fn are_whole(&self) -> bool {
        self.places.null_count() == 0 && self.texts.null_count() == 0
    }
}

/// One field of some rows.
pub(super) struct Column {
    /// The objects that it stands in. Where one is null, the field is missing.
    parents: Vec<ArrayRef>,
    cells: Cells,
}

enum Cells {
    Missing,
    Null,
    Views(StringViewArray),
    Texts(StringArray),
    LargeTexts(LargeStringArray),
    Words(Words),
    Bools(BooleanArray),
    Ints(Int64Array),
    Large(UInt64Array),
    Doubles(Float64Array),
    Singles(Float32Array),
    Lists(ArrayRef),
    Objects(ArrayRef),
}

impl Column {
    /// A field that no row has.
    pub(super) fn missing() -> Self {
        Column { parents: Vec::new(), cells: Cells::Missing }
    }

    /// The field that a path names.
    pub(super) fn find(rows: &StructArray, path: &[String]) -> Self {
        let Some((name, below)) = path.split_first() else { return Self::missing() };
        // Of several columns of one name the last one counts, as in JSON.
        let is_it =
            |field: &arrow_schema::FieldRef| field.name() == name && has_json(field.data_type());
        let Some(place) = rows.fields().iter().rposition(is_it) else { return Self::missing() };
        let column = rows.column(place);
        match column.data_type() {
            _ if below.is_empty() => Column { parents: Vec::new(), cells: Cells::of(column) },
            DataType::Struct(_) => {
                let mut found = Self::find(column.as_struct(), below);
                found.parents.push(column.clone());
                found
            }
            _ => Self::missing(),
        }
    }

    fn words(&self) -> Option<&Words> {
        match &self.cells {
            Cells::Words(words) if self.parents.is_empty() => Some(words),
            _ => None,
        }
    }

    /// Puts the values of some rows into a slot of a block, and gives those whose value is bad as
    /// bits.
    #[inline(never)]
    pub(super) fn fill<'a>(
        &'a self,
        rows: Range<usize>,
        wanted: &Wanted,
        slot: usize,
        block: &mut Block<'a>,
    ) -> u32 {
        let with_care = |row: usize| wanted.value(self.raw(row)).ok();
        match &self.cells {
            _ if !self.parents.is_empty() => block.fill(slot, rows, with_care),
            Cells::Words(words) if words.are_whole() => {
                let places: &[i32] = words.places.values();
                let text = |row: usize| words.texts.value(places[row] as usize);
                block.fill(slot, rows, |row| wanted.text(text(row)))
            }
            Cells::Views(texts) if texts.null_count() == 0 => {
                block.fill(slot, rows, |row| wanted.text(texts.value(row)))
            }
            Cells::Ints(numbers) if numbers.null_count() == 0 => {
                block.fill(slot, rows, |row| wanted.int(numbers.value(row)))
            }
            _ => block.fill(slot, rows, with_care),
        }
    }

    /// The field as its JSON would have it.
    #[inline(never)]
    pub(super) fn raw(&self, row: usize) -> Raw<'_> {
        if self.parents.iter().any(|parent| parent.is_null(row)) {
            return Raw::Missing;
        }
        match &self.cells {
            Cells::Missing => Raw::Missing,
            Cells::Views(a) if a.is_valid(row) => Raw::String(Cow::Borrowed(a.value(row))),
            Cells::Texts(a) if a.is_valid(row) => Raw::String(Cow::Borrowed(a.value(row))),
            Cells::LargeTexts(a) if a.is_valid(row) => Raw::String(Cow::Borrowed(a.value(row))),
            Cells::Words(words) => {
                words.text(row).map_or(Raw::Null, |text| Raw::String(Cow::Borrowed(text)))
            }
            Cells::Bools(a) if a.is_valid(row) => Raw::Bool(a.value(row)),
            Cells::Ints(a) if a.is_valid(row) => Raw::Int(a.value(row)),
            Cells::Large(a) if a.is_valid(row) => {
                i64::try_from(a.value(row)).map_or(Raw::Large(a.value(row)), Raw::Int)
            }
            // JSON has no number that is none or without end: they are null.
            Cells::Doubles(a) if a.is_valid(row) && a.value(row).is_finite() => {
                Raw::Double(a.value(row))
            }
            Cells::Singles(a) if a.is_valid(row) && a.value(row).is_finite() => {
                // By its decimal text: 0.1 stays 0.1.
                a.value(row).to_string().parse().map_or(Raw::Null, Raw::Double)
            }
            Cells::Lists(a) if a.is_valid(row) => Raw::List,
            Cells::Objects(a) if a.is_valid(row) => Raw::Object,
            _ => Raw::Null,
        }
    }
}

impl Cells {
    fn of(column: &ArrayRef) -> Self {
        use DataType as T;
        match column.data_type() {
            T::Utf8View => Cells::Views(column.as_string_view().clone()),
            T::Utf8 => Cells::Texts(column.as_string::<i32>().clone()),
            T::LargeUtf8 => Cells::LargeTexts(column.as_string::<i64>().clone()),
            // The only dictionaries for which `has_json` holds.
            T::Dictionary(..) => Cells::Words(Words::of(column)),
            T::Boolean => Cells::Bools(column.as_boolean().clone()),
            T::Int8 => Cells::Ints(column.as_primitive::<Int8Type>().unary(i64::from)),
            T::Int16 => Cells::Ints(column.as_primitive::<Int16Type>().unary(i64::from)),
            T::Int32 => Cells::Ints(column.as_primitive::<Int32Type>().unary(i64::from)),
            T::Int64 => Cells::Ints(column.as_primitive::<Int64Type>().clone()),
            T::UInt8 => Cells::Ints(column.as_primitive::<UInt8Type>().unary(i64::from)),
            T::UInt16 => Cells::Ints(column.as_primitive::<UInt16Type>().unary(i64::from)),
            T::UInt32 => Cells::Ints(column.as_primitive::<UInt32Type>().unary(i64::from)),
            T::UInt64 => Cells::Large(column.as_primitive::<UInt64Type>().clone()),
            T::Float32 => Cells::Singles(column.as_primitive::<Float32Type>().clone()),
            T::Float64 => Cells::Doubles(column.as_primitive::<Float64Type>().clone()),
            T::Timestamp(unit, _) => Cells::Ints(milliseconds(column, *unit)),
            T::List(_) | T::LargeList(_) => Cells::Lists(column.clone()),
            T::Struct(_) => Cells::Objects(column.clone()),
            _ => Cells::Null,
        }
    }
}

fn milliseconds(column: &ArrayRef, unit: TimeUnit) -> Int64Array {
    match unit {
        TimeUnit::Second => {
            column.as_primitive::<TimestampSecondType>().unary(|s| s.saturating_mul(1000))
        }
        TimeUnit::Millisecond => column.as_primitive::<TimestampMillisecondType>().unary(|ms| ms),
        TimeUnit::Microsecond => {
            column.as_primitive::<TimestampMicrosecondType>().unary(|us| us.div_euclid(1000))
        }
        TimeUnit::Nanosecond => {
            column.as_primitive::<TimestampNanosecondType>().unary(|ns| ns.div_euclid(1_000_000))
        }
    }
}
