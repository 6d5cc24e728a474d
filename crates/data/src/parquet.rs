//! Parquet, the format of data sets on the Hub.
//!
//! In: a Parquet file. Out: the named columns, row by row, decoded a row group at a time.
//! Never: reads a column that nobody asked for, or takes one of another type for text.

use std::fs::File;
use std::io::BufRead;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use ::parquet::basic::Type as Physical;
use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{ChunkReader, FileReader, SerializedFileReader};
use ::parquet::record::reader::RowIter;
use ::parquet::record::{Field, Row};
use ::parquet::schema::types::{Type, TypePtr};
use bytes::Bytes;
use serde_json::{Map, Value};

use crate::error::{Error, Problem, reading};
use crate::label::RawLabel;
use crate::source::{Bad, Candidate, Column, Placed, Sink};

/// Reads the rows of a file.
pub(crate) fn read(file: File, sink: &mut Sink<'_>) -> Result<(), Error> {
    read_chunks(file, sink)
}

/// Reads rows from bytes, all held in memory: the format begins at its end.
pub(crate) fn read_input(mut input: impl BufRead, sink: &mut Sink<'_>) -> Result<(), Error> {
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes).map_err(reading(sink.file))?;
    read_chunks(Bytes::from(bytes), sink)
}

/// Reads rows, and takes a panic for what it is: on some damaged files the `parquet` crate asserts
/// what the file claims. The sink of a failed read is dropped by the caller, so nothing half-done
/// is seen.
fn read_chunks<R: ChunkReader + 'static>(input: R, sink: &mut Sink<'_>) -> Result<(), Error> {
    let file = sink.file;
    catch_unwind(AssertUnwindSafe(|| read_rows(input, sink)))
        .unwrap_or_else(|_| Err(damaged(file, "its parts do not fit together")))
}

fn read_rows<R: ChunkReader + 'static>(input: R, sink: &mut Sink<'_>) -> Result<(), Error> {
    let path = sink.file;
    let refused = |error: ParquetError| damaged(path, &error.to_string());
    let reader = SerializedFileReader::new(input).map_err(refused)?;
    let schema = reader.metadata().file_metadata().schema();
    let spec = sink.spec;
    let columns = [Some(&spec.text), spec.pair.as_ref(), spec.label.as_ref()];
    let mut wanted: Vec<TypePtr> = Vec::new();
    for column in columns.into_iter().flatten() {
        let field = find(schema, column, path)?;
        if !wanted.iter().any(|other| other.name() == field.name()) {
            wanted.push(field);
        }
    }
    let name = |column: &Column| find(schema, column, path).map(|field| field.name().to_owned());
    let text = name(&spec.text)?;
    let pair = spec.pair.as_ref().map(name).transpose()?;
    let label = spec.label.as_ref().map(name).transpose()?;
    let projection =
        Type::group_type_builder(schema.name()).with_fields(wanted).build().map_err(refused)?;
    let rows = reader.get_row_iter(Some(projection)).map_err(refused)?;
    for (row, number) in rows.zip(1..) {
        let row = row.map_err(refused)?;
        let found = pick(&row, &text, pair.as_deref(), label.as_deref());
        sink.take(number, b"", found)?;
    }
    Ok(())
}

/// The named columns of a file, row by row, as JSON would say them; a name in `optional` may be
/// absent. A row group at a time is in memory.
pub(crate) fn records(
    file: File,
    path: &Path,
    required: &[&str],
    optional: &[&str],
) -> Result<impl Iterator<Item = Result<Map<String, Value>, Error>> + Send + use<>, Error> {
    let open = || {
        let refused = |error: ParquetError| damaged(path, &error.to_string());
        let reader = SerializedFileReader::new(file).map_err(refused)?;
        let schema = reader.metadata().file_metadata().schema();
        let mut wanted = Vec::new();
        for name in required {
            wanted.push(find(schema, &Column::Name((*name).to_owned()), path)?);
        }
        for name in optional {
            let column = Column::Name((*name).to_owned());
            if schema.get_fields().iter().any(|field| field.name() == *name) {
                wanted.push(find(schema, &column, path)?);
            }
        }
        let projection =
            Type::group_type_builder(schema.name()).with_fields(wanted).build().map_err(refused)?;
        RowIter::from_file_into(Box::new(reader)).project(Some(projection)).map_err(refused)
    };
    let broken = |path: &Path| damaged(path, "its parts do not fit together");
    let mut rows = catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|_| Err(broken(path)))?;
    let path = path.to_owned();
    let mut ended = false;
    Ok(std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let row = match catch_unwind(AssertUnwindSafe(|| rows.next())) {
            Ok(row) => row?.map_err(|error| damaged(&path, &error.to_string())),
            Err(_) => Err(broken(&path)),
        };
        ended = row.is_err();
        Some(row.map(|row| {
            row.get_column_iter().map(|(name, field)| (name.clone(), json(field))).collect()
        }))
    }))
}

/// A value as JSON says it. Bytes that are no text become null, as do dates: neither is a document.
fn json(field: &Field) -> Value {
    match field {
        Field::Bytes(bytes) => std::str::from_utf8(bytes.data()).map_or(Value::Null, Value::from),
        Field::Str(text) => text.as_str().into(),
        Field::Bool(value) => (*value).into(),
        Field::Int(value) => (*value).into(),
        Field::Long(value) => (*value).into(),
        Field::Float(value) => (*value).into(),
        Field::Double(value) => (*value).into(),
        Field::Group(row) => {
            row.get_column_iter().map(|(name, field)| (name.clone(), json(field))).collect()
        }
        Field::ListInternal(list) => list.elements().iter().map(json).collect(),
        _ => Value::Null,
    }
}

fn damaged(file: &Path, reason: &str) -> Error {
    Error::Parquet { file: file.to_owned(), reason: reason.escape_debug().to_string() }
}

fn find(schema: &Type, column: &Column, file: &Path) -> Result<TypePtr, Error> {
    let fields = schema.get_fields();
    let found = match column {
        Column::Index(index) => fields.get(*index),
        Column::Name(name) => fields.iter().find(|field| field.name() == name),
    };
    let field = found.ok_or_else(|| Error::NoColumn {
        file: file.to_owned(),
        column: column.to_string(),
        known: fields.iter().map(|field| field.name().to_owned()).collect(),
    })?;
    if !readable(field) {
        let column = field.name();
        return Err(damaged(
            file,
            &format!("column `{column}` is neither text nor number nor list"),
        ));
    }
    Ok(Arc::clone(field))
}

/// Whether the record reader knows the type: it panics on some.
fn readable(field: &Type) -> bool {
    match field {
        Type::PrimitiveType { physical_type, .. } => matches!(
            physical_type,
            Physical::BOOLEAN
                | Physical::INT32
                | Physical::INT64
                | Physical::FLOAT
                | Physical::DOUBLE
                | Physical::BYTE_ARRAY
        ),
        Type::GroupType { fields, .. } => fields.iter().all(|field| readable(field)),
    }
}

fn pick(row: &Row, text: &str, pair: Option<&str>, label: Option<&str>) -> Result<Candidate, Bad> {
    let value = |name: &str| row.get_column_iter().find(|(other, _)| *other == name);
    let as_text = |name: &str| {
        let (field, expected) = (name.to_owned(), "text");
        let problem = match value(name) {
            Some((_, Field::Str(value))) => {
                return Ok(Placed { value: value.clone(), column: None });
            }
            // Files written without a logical type hold text as bytes.
            Some((_, Field::Bytes(bytes))) => match std::str::from_utf8(bytes.data()) {
                Ok(value) => return Ok(Placed { value: value.to_owned(), column: None }),
                Err(_) => Problem::InvalidUtf8,
            },
            Some((_, Field::Null)) | None => Problem::Null { field, expected },
            Some((_, other)) => Problem::WrongType { field, found: type_of(other), expected },
        };
        Err(Bad { column: None, problem })
    };
    let as_label = |name: &str| {
        let (field, expected) = (name.to_owned(), "a label");
        let problem = match value(name).map(|(_, value)| (raw_label(value), value)) {
            Some((Some(value), _)) => return Ok(Placed { value, column: None }),
            Some((None, Field::Null)) | None => Problem::Null { field, expected },
            Some((None, other)) => Problem::WrongType { field, found: type_of(other), expected },
        };
        Err(Bad { column: None, problem })
    };
    Ok(Candidate {
        text: as_text(text)?,
        pair: pair.map(as_text).transpose()?,
        label: label.map(as_label).transpose()?,
    })
}

fn raw_label(field: &Field) -> Option<RawLabel> {
    let integer = |value: i64| Some(RawLabel::Integer(value));
    match field {
        Field::Bool(value) => integer(i64::from(*value)),
        Field::Byte(value) => integer(i64::from(*value)),
        Field::Short(value) => integer(i64::from(*value)),
        Field::Int(value) => integer(i64::from(*value)),
        Field::Long(value) => integer(*value),
        Field::UByte(value) => integer(i64::from(*value)),
        Field::UShort(value) => integer(i64::from(*value)),
        Field::UInt(value) => integer(i64::from(*value)),
        Field::ULong(value) => i64::try_from(*value).ok().map(RawLabel::Integer),
        Field::Float(value) => Some(RawLabel::Float(f64::from(*value))),
        Field::Double(value) => Some(RawLabel::Float(*value)),
        Field::Str(text) => Some(RawLabel::Text(text.clone())),
        Field::ListInternal(list) => {
            let parts: Option<Vec<RawLabel>> = list.elements().iter().map(raw_label).collect();
            parts.map(RawLabel::List)
        }
        _ => None,
    }
}

fn type_of(field: &Field) -> &'static str {
    match field {
        Field::Null => "null",
        Field::Bool(_) => "a boolean",
        Field::Float(_) | Field::Double(_) => "a number",
        Field::Str(_) => "text",
        Field::ListInternal(_) => "a list",
        Field::Group(_) | Field::MapInternal(_) => "an object",
        _ => "an integer or a date",
    }
}
