//! `hub.signals`: named formulas over the columns of a battery's rows.

use diesel::{
    ExpressionMethods, PgConnection, QueryDsl, QueryResult, Queryable, RunQueryDsl, Selectable,
    SelectableHelper,
};

use super::schema::signals;

/// A derived signal.
#[derive(Debug, Clone, PartialEq, Eq, Queryable, Selectable)]
#[diesel(table_name = signals, check_for_backend(diesel::pg::Pg))]
pub struct Signal {
    /// What it is asked for by.
    pub name: String,
    /// The formula.
    pub expression: String,
    /// The unit of the result.
    pub unit: Option<String>,
}

/// Returns a battery's signals by name.
///
/// # Errors
/// As diesel's.
pub fn list(connection: &mut PgConnection, battery_id: i64) -> QueryResult<Vec<Signal>> {
    signals::table
        .filter(signals::battery_id.eq(battery_id))
        .order(signals::name)
        .select(Signal::as_select())
        .load(connection)
}

/// Writes a signal, in place of one of the same name; tells whether it is a new one.
///
/// # Errors
/// As diesel's.
pub fn put(connection: &mut PgConnection, battery_id: i64, signal: &Signal) -> QueryResult<bool> {
    let known = remove(connection, battery_id, &signal.name)?;
    diesel::insert_into(signals::table)
        .values((
            signals::battery_id.eq(battery_id),
            signals::name.eq(&signal.name),
            signals::expression.eq(&signal.expression),
            signals::unit.eq(&signal.unit),
        ))
        .execute(connection)?;
    Ok(!known)
}

/// Removes a signal; tells whether there was one.
///
/// # Errors
/// As diesel's.
pub fn remove(connection: &mut PgConnection, battery_id: i64, name: &str) -> QueryResult<bool> {
    let found = signals::table.find((battery_id, name));
    Ok(diesel::delete(found).execute(connection)? > 0)
}
