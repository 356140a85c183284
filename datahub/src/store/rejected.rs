//! `hub.rejected_rows`: rows that fit no rule, with the reason.

use diesel::{PgConnection, QueryResult, RunQueryDsl};

use super::{
    batteries::Line,
    statement::{ArrayBind, Statement},
};
use crate::{batch::Batch, upload::RejectedRow};

/// Keeps rejected rows of one battery.
pub(super) fn keep(
    connection: &mut PgConnection,
    line: &Line,
    rows: &[(&Batch, RejectedRow)],
) -> QueryResult<()> {
    if rows.is_empty() {
        return Ok(());
    }
    // PostgreSQL's text cannot hold NUL, which a refused name may.
    let reasons: Vec<String> = rows
        .iter()
        .map(|(_, row)| row.reason.replace('\0', "\\0"))
        .collect();
    let bodies: Vec<String> = rows.iter().map(|(_, row)| row.body.to_string()).collect();
    let position = |(batch, row): &(&Batch, RejectedRow)| {
        batch.position + i64::try_from(row.offset).unwrap_or_default()
    };
    let session = |(batch, _): &(&Batch, RejectedRow)| Some(batch.uploader.claim.session);
    Statement::cached()
        .sql(
            "INSERT INTO hub.rejected_rows \
             (battery_id, epoch, session, position, received, reason, body) SELECT ",
        )
        .long(line.id)
        .sql(", ")
        .long(line.epoch)
        .sql(", s, p, r, t, b::json FROM unnest(")
        .array(ArrayBind::uuids(rows.iter().map(session)))
        .sql(", ")
        .array(ArrayBind::longs(rows.iter().map(position)))
        .sql(", ")
        .array(ArrayBind::times(
            rows.iter().map(|(batch, _)| batch.received),
        ))
        .sql(", ")
        .array(ArrayBind::texts(reasons.iter().map(String::as_str)))
        .sql(", ")
        .array(ArrayBind::texts(bodies.iter().map(String::as_str)))
        .sql(") AS u(s, p, r, t, b)")
        .execute(connection)
        .map(drop)
}
