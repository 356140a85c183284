//! Many rows of one battery's table by binary `COPY … TO STDOUT`: no object a row and a cell, which
//! is what most of the time of a long answer goes into.
//!
//! As in `copy`, what is copied reaches diesel through a variable of the thread. Values cannot be
//! bound in a `COPY`; the only ones are numbers of rows. Each column is cast to the type that it is
//! read as, so that one which was retyped meanwhile is never misread.

use std::{cell::RefCell, io::BufRead};

use diesel::{
    PgConnection, QueryResult,
    connection::SimpleConnection,
    pg::{CopyFormat, CopyTarget, Pg},
    query_builder::AstPass,
    result::{DatabaseErrorKind, Error as DieselError},
    sql_types::BigInt,
};
use rovi_common::rows::{Column, Columns};

use super::{
    rows::{Form, PageLimits, Selected},
    schema::batteries,
    statement::US_1970_TO_2000,
};

/// Signature and flags; the length of the header's extension follows.
const HEADER_BYTES: usize = 15;
/// In place of the number of fields, after the last row.
const TRAILER: i16 = -1;

/// What the present `COPY` reads.
#[derive(Default)]
struct Wanted {
    battery: String,
    /// Names, and the types that cells are sent as.
    columns: Vec<(String, &'static str)>,
    first: i64,
    last: i64,
    most: i64,
}

thread_local! {
    static WANTED: RefCell<Wanted> = RefCell::default();
}

/// What [`WANTED`] describes.
struct SomeRows;

impl CopyTarget for SomeRows {
    /// Diesel wants one that it knows; nothing of it is used.
    type Table = batteries::table;
    type SqlType = BigInt;

    fn walk_target(mut out: AstPass<'_, '_, Pg>) -> QueryResult<()> {
        WANTED.with_borrow(|wanted| {
            out.push_sql("(SELECT seq::bigint, received::timestamptz, segment::integer");
            for (name, kind) in &wanted.columns {
                out.push_sql(", ");
                out.push_identifier(name)?;
                out.push_sql("::");
                out.push_sql(kind);
            }
            out.push_sql(" FROM battery.");
            out.push_identifier(&wanted.battery)?;
            let Wanted {
                first, last, most, ..
            } = wanted;
            out.push_sql(&format!(
                " WHERE seq BETWEEN {first} AND {last} ORDER BY seq LIMIT {most})"
            ));
            Ok(())
        })
    }
}

/// Reads rows of a battery's table by a range of `seq`, in ascending order, within a transaction
/// of the caller's.
///
/// # Errors
/// As diesel's; without a transaction.
pub(super) fn page(
    connection: &mut PgConnection,
    battery: &str,
    (first, last): (i64, i64),
    columns: &Form,
    limits: PageLimits,
) -> QueryResult<Selected> {
    // `COPY` looks at the rows as of before it waits for a table that is just being rewritten, and
    // would find none of them; holding the table first, it looks after.
    // The characters of a battery's name need no escaping.
    connection.batch_execute(&format!(
        "LOCK TABLE battery.\"{battery}\" IN ACCESS SHARE MODE"
    ))?;
    let most = i64::try_from(limits.rows).unwrap_or(i64::MAX);
    WANTED.set(Wanted {
        battery: battery.to_owned(),
        columns: columns
            .iter()
            .map(|(name, kind)| (name.clone(), kind.sql()))
            .collect(),
        first,
        last,
        // One more tells whether there are more.
        most: most.saturating_add(1),
    });
    let copy = diesel::copy_to(SomeRows).with_format(CopyFormat::Binary);
    let mut out = copy.load_raw(connection)?;
    let mut selected = Selected::default();
    let mut cells: Vec<Column> = columns.iter().map(|(_, kind)| kind.empty()).collect();
    let mut bytes = 0_usize;
    let (mut is_first, mut is_whole) = (true, false);
    loop {
        // PostgreSQL sends a message a row, the first one with the header before it.
        let message = out.fill_buf().map_err(|error| lost(error.to_string()))?;
        let length = message.len();
        if length == 0 {
            break;
        }
        let mut reader = Reader(message);
        if std::mem::take(&mut is_first) {
            reader.header()?;
        }
        let fields = reader.short()?;
        if fields == TRAILER {
            is_whole = true;
        } else if selected.seq.len() == limits.rows || bytes > limits.bytes {
            // The rest is read over, so that the connection can be used again.
            selected.more = true;
        } else {
            bytes = bytes.saturating_add(length);
            take_row(&mut reader, &mut selected, &mut cells)?;
        }
        out.consume(length);
    }
    drop(out);
    if !is_whole {
        return Err(lost("PostgreSQL broke an answer off".to_owned()));
    }
    // What PostgreSQL says behind the rows is not read by diesel, and another statement would be
    // refused before it is; this way of asking reads it over first.
    connection.batch_execute("SELECT")?;
    let names = columns.iter().map(|(name, _)| name.clone());
    // PostgreSQL's names are unique, and every row gave each column a cell.
    selected.columns = Columns::new(names.zip(cells).collect()).unwrap_or_default();
    Ok(selected)
}

fn take_row(
    reader: &mut Reader<'_>,
    selected: &mut Selected,
    cells: &mut [Column],
) -> QueryResult<()> {
    let seq = reader.long()?.ok_or_else(|| broken("a row has no seq"))?;
    selected.seq.push(seq);
    selected.received.push(reader.time()?);
    let segment = reader.cell()?.map(<[u8; 4]>::try_from).transpose();
    let segment = segment.map_err(|_other| broken("segment has another length"))?;
    selected.segment.push(segment.map(i32::from_be_bytes));
    for column in cells {
        match column {
            Column::Float(cells) => {
                let bits = reader.long()?;
                cells.push(bits.map(|bits| f64::from_bits(bits.cast_unsigned())));
            }
            Column::Int(cells) => cells.push(reader.long()?),
            Column::Time(cells) => cells.push(reader.time()?),
            Column::Bool(cells) => {
                let cell = reader.cell()?;
                cells.push(cell.map(|cell| cell.first().is_some_and(|byte| *byte != 0)));
            }
            Column::Text(cells) => {
                let text = reader.cell()?.map(str::from_utf8).transpose();
                let text = text.map_err(|error| broken(error.to_string()))?;
                cells.push(text.map(str::to_owned));
            }
            // No column of a table begins as one of these.
            Column::Null(_) | Column::Mixed(_) => return Err(broken("a column has no type")),
        }
    }
    Ok(())
}

/// The bytes of one message.
struct Reader<'m>(&'m [u8]);

impl<'m> Reader<'m> {
    fn take(&mut self, bytes: usize) -> QueryResult<&'m [u8]> {
        let (taken, rest) = self
            .0
            .split_at_checked(bytes)
            .ok_or_else(|| broken("a message ends within a cell"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> QueryResult<[u8; N]> {
        let taken = self.take(N)?;
        taken
            .try_into()
            .map_err(|_other| broken("a cell has another length"))
    }

    fn header(&mut self) -> QueryResult<()> {
        self.take(HEADER_BYTES)?;
        let extension = i32::from_be_bytes(self.array()?);
        self.take(usize::try_from(extension).unwrap_or(0)).map(drop)
    }

    fn short(&mut self) -> QueryResult<i16> {
        self.array().map(i16::from_be_bytes)
    }

    /// Reads a cell; `None` is null.
    fn cell(&mut self) -> QueryResult<Option<&'m [u8]>> {
        match usize::try_from(i32::from_be_bytes(self.array()?)) {
            Ok(length) => self.take(length).map(Some),
            Err(_null) => Ok(None),
        }
    }

    fn long(&mut self) -> QueryResult<Option<i64>> {
        let cell = self.cell()?.map(<[u8; 8]>::try_from).transpose();
        let cell = cell.map_err(|_other| broken("a number has another length"))?;
        Ok(cell.map(i64::from_be_bytes))
    }

    /// Reads a time, in microseconds since 1970.
    fn time(&mut self) -> QueryResult<Option<i64>> {
        let since_2000 = self.long()?;
        Ok(since_2000.map(|us| us.saturating_add(US_1970_TO_2000)))
    }
}

/// The connection, or the statement, ended: reading again may help.
fn lost(why: String) -> DieselError {
    DieselError::DatabaseError(DatabaseErrorKind::UnableToSendCommand, Box::new(why))
}

fn broken(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> DieselError {
    DieselError::DeserializationError(why.into())
}
