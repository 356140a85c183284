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
/// The hub's own columns: `seq`, `received`, `segment`.
const OWN_FIELDS: usize = 3;

/// The table and the columns of the present `COPY`.
#[derive(Default)]
struct Target {
    battery: String,
    columns: Vec<String>,
}

thread_local! {
    static TARGET: RefCell<Target> = RefCell::default();
}

/// What [`TARGET`] names.
struct BatteryTable;

impl CopyTarget for BatteryTable {
    /// Diesel wants one that it knows; nothing of it is used.
    type Table = batteries::table;
    type SqlType = BigInt;

    fn walk_target(mut out: AstPass<'_, '_, Pg>) -> QueryResult<()> {
        TARGET.with_borrow(|target| {
            out.push_sql("battery.");
            out.push_identifier(&target.battery)?;
            out.push_sql(" (seq, received, segment");
            for column in &target.columns {
                out.push_sql(", ");
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
    TARGET.set(Target {
        battery: battery.to_owned(),
        columns: own_columns(table)
            .map(|(name, _)| name.to_owned())
            .collect(),
    });
    diesel::copy_from(batteries::table)
        .from_raw_data(BatteryTable, |out| write(out, table, rows))
        .with_format(CopyFormat::Binary)
        .execute(connection)
        .map(drop)
}

/// Writes the rows in PostgreSQL's binary form, while the server already takes the first ones.
fn write(out: &mut dyn Write, table: &Table, rows: &[Numbered<'_, '_>]) -> QueryResult<()> {
    let elements: Vec<_> = own_columns(table).map(|(_, element)| element).collect();
    let fields = i16::try_from(OWN_FIELDS + elements.len()).unwrap_or(i16::MAX);
    let mut bytes = Vec::with_capacity(2 * CHUNK_BYTES);
    bytes.extend_from_slice(HEADER);
    for rows in rows {
        let columns = find_columns(rows, table);
        for (row, seq) in rows.rows() {
            bytes.extend_from_slice(&fields.to_be_bytes());
            bind::put(&mut bytes, &seq.to_be_bytes());
            bind::put_time(&mut bytes, rows.piece.received);
            bind::put(&mut bytes, &rows.run.segment.to_be_bytes());
            for (&element, column) in elements.iter().zip(&columns) {
                match column {
                    Some(column) => bind::put_cell(&mut bytes, element, column, row),
                    None => bind::put_null(&mut bytes),
                }
            }
            if bytes.len() >= CHUNK_BYTES {
                out.write_all(&bytes).map_err(|error| lost(&error))?;
                bytes.clear();
            }
        }
    }
    bytes.extend_from_slice(&TRAILER.to_be_bytes());
    out.write_all(&bytes).map_err(|error| lost(&error))
}

/// Only a connection that is lost takes no data: what the server refuses it says at the end.
fn lost(error: &std::io::Error) -> DieselError {
    DieselError::DatabaseError(
        DatabaseErrorKind::UnableToSendCommand,
        Box::new(error.to_string()),
    )
}
