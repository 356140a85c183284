//! Many rows of one table by binary `COPY`, twice as fast as a statement with arrays.
//!
//! Diesel names the target of a `COPY` by a type, so the run-time name of the table reaches it
//! through a variable of the thread. That, and a method which diesel does not document, stay in
//! this file; its test goes through odd names, all types and refused rows.

use std::{cell::RefCell, io::Write};

use diesel::{
    ExecuteCopyFromDsl, PgConnection, QueryResult,
    pg::{CopyFormat, CopyTarget, Pg},
    query_builder::AstPass,
    result::{DatabaseErrorKind, Error as DieselError},
    sql_types::BigInt,
};

use super::{
    bind,
    insert::{find_columns, own_columns},
    number::Numbered,
    schema::batteries,
    tables::Table,
};

/// Signature, flags and length of the header's extension.
const HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Stands in place of the number of fields after the last row.
const TRAILER: i16 = -1;
/// Bytes handed over at once: large enough to be few calls, small enough to stay in the cache.
const CHUNK_BYTES: usize = 32 << 10;
/// The hub's own columns.
const OWN_FIELDS: [&str; 3] = ["seq", "received", "segment"];

/// The table and the columns of a `COPY`.
#[derive(Debug, Default)]
pub(super) struct Target {
    /// `battery` or `estimates`.
    pub(super) schema: &'static str,
    /// The battery's name.
    pub(super) table: String,
    /// All that have a field in each row.
    pub(super) columns: Vec<String>,
}

thread_local! {
    static TARGET: RefCell<Target> = RefCell::default();
}

/// What [`TARGET`] names.
struct NamedTable;

impl CopyTarget for NamedTable {
    /// Diesel wants one that it knows; nothing of it is used.
    type Table = batteries::table;
    type SqlType = BigInt;

    fn walk_target(mut out: AstPass<'_, '_, Pg>) -> QueryResult<()> {
        TARGET.with_borrow(|target| {
            out.push_identifier(target.schema)?;
            out.push_sql(".");
            out.push_identifier(&target.table)?;
            for (place, column) in target.columns.iter().enumerate() {
                out.push_sql(if place == 0 { " (" } else { ", " });
                out.push_identifier(column)?;
            }
            out.push_sql(")");
            Ok(())
        })
    }
}

/// Copies numbered rows into a battery's table.
///
/// # Errors
/// As diesel's: nothing of the rows was written.
pub(super) fn copy(
    connection: &mut PgConnection,
    battery: &str,
    table: &Table,
    rows: &[Numbered<'_, '_>],
) -> QueryResult<()> {
    let columns = own_columns(table).map(|(name, _)| name);
    let target = Target {
        schema: "battery",
        table: battery.to_owned(),
        columns: OWN_FIELDS
            .into_iter()
            .chain(columns)
            .map(str::to_owned)
            .collect(),
    };
    into(connection, target, |out| write(out, table, rows)).map(drop)
}

/// Copies what `write` writes in PostgreSQL's binary form; returns the number of rows.
///
/// # Errors
/// As diesel's: nothing was written.
pub(super) fn into(
    connection: &mut PgConnection,
    target: Target,
    write: impl Fn(&mut dyn Write) -> QueryResult<()>,
) -> QueryResult<usize> {
    TARGET.set(target);
    diesel::copy_from(batteries::table)
        .from_raw_data(NamedTable, write)
        .with_format(CopyFormat::Binary)
        .execute(connection)
}

/// Rows in PostgreSQL's binary form, handed over while they are written: the server already takes
/// the first ones meanwhile.
pub(super) struct Rows<'o> {
    out: &'o mut dyn Write,
    bytes: Vec<u8>,
    fields: [u8; 2],
}

impl<'o> Rows<'o> {
    /// Begins, with so many fields in each row.
    pub(super) fn new(out: &'o mut dyn Write, fields: usize) -> Self {
        let mut bytes = Vec::with_capacity(2 * CHUNK_BYTES);
        bytes.extend_from_slice(HEADER);
        Self {
            out,
            bytes,
            fields: i16::try_from(fields).unwrap_or(i16::MAX).to_be_bytes(),
        }
    }

    /// Begins a row; its fields are appended to what this returns.
    pub(super) fn begin_row(&mut self) -> QueryResult<&mut Vec<u8>> {
        if self.bytes.len() >= CHUNK_BYTES {
            self.hand_over()?;
        }
        self.bytes.extend_from_slice(&self.fields);
        Ok(&mut self.bytes)
    }

    /// Ends behind the last row.
    pub(super) fn end(mut self) -> QueryResult<()> {
        self.bytes.extend_from_slice(&TRAILER.to_be_bytes());
        self.hand_over()
    }

    fn hand_over(&mut self) -> QueryResult<()> {
        self.out
            .write_all(&self.bytes)
            .map_err(|error| lost(&error))?;
        self.bytes.clear();
        Ok(())
    }
}

fn write(out: &mut dyn Write, table: &Table, rows: &[Numbered<'_, '_>]) -> QueryResult<()> {
    let elements: Vec<_> = own_columns(table).map(|(_, element)| element).collect();
    let mut written = Rows::new(out, OWN_FIELDS.len() + elements.len());
    for rows in rows {
        let columns = find_columns(rows, table);
        for (row, seq) in rows.rows() {
            let bytes = written.begin_row()?;
            bind::put_eight(bytes, seq.to_be_bytes());
            bind::put_time(bytes, rows.piece.received);
            bind::put(bytes, &rows.run.segment.to_be_bytes());
            for (&element, column) in elements.iter().zip(&columns) {
                match column {
                    Some(column) => bind::put_cell(bytes, element, column, row),
                    None => bind::put_null(bytes),
                }
            }
        }
    }
    written.end()
}

/// Only a connection that is lost takes no data: what the server refuses it says at the end.
fn lost(error: &std::io::Error) -> DieselError {
    DieselError::DatabaseError(
        DatabaseErrorKind::UnableToSendCommand,
        Box::new(error.to_string()),
    )
}
