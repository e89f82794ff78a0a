//! The fields of a mapping as columns: what [`super::fields`] is for JSON, for rows of Parquet.
//!
//! A row gives what its JSON object would give, field by field, without making text of it.

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
    Array, ArrayRef, BooleanArray, Float32Array, Float64Array, Int64Array, LargeStringArray,
    StringArray, StringViewArray, StructArray, UInt64Array,
};
use arrow_schema::{DataType, TimeUnit};
use marquee_expr::Value;
use std::borrow::Cow;

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

    /// The typed value of a row, if it is a good one.
    #[inline]
    pub(super) fn value<'a>(&'a self, row: usize, wanted: &Wanted) -> Option<Value<'a>> {
        match &self.cells {
            Cells::Views(texts) if self.parents.is_empty() && texts.is_valid(row) => {
                wanted.text(texts.value(row))
            }
            Cells::Ints(numbers) if self.parents.is_empty() && numbers.is_valid(row) => {
                wanted.int(numbers.value(row))
            }
            _ => wanted.value(self.raw(row)).ok(),
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
