//! Finding batteries by what their metadata say.

use diesel::{
    PgConnection, QueryableByName, RunQueryDsl,
    sql_types::{BigInt, Bool, Json, Nullable, Text},
};
use rovi_common::{
    auth::known::Visible,
    filter::{Clause, Filter, Scalar},
};
use serde_json::Value;

use super::{
    StoreError,
    statement::{ArrayBind, Statement},
};

/// Batteries looked at in one query.
const PAGE: usize = 1000;
/// Batteries looked at for one answer; beyond, the caller goes on from where this stopped.
const MOST_LOOKED_AT: usize = 20_000;

/// What is looked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Search {
    /// Conditions on metadata and on what the hub knows by itself.
    pub(crate) filter: Filter,
    /// A text that name or metadata hold, whatever the case.
    pub(crate) text: Option<String>,
    /// Most batteries of the answer.
    pub(crate) limit: usize,
    /// Only batteries whose names come after this one.
    pub(crate) after: String,
    /// The batteries that whoever asks may see; others are not even counted.
    pub(crate) visible: Visible,
}

/// A battery that was found.
#[derive(Debug, Clone, QueryableByName)]
pub(crate) struct Found {
    /// Its name.
    #[diesel(sql_type = Text)]
    pub(crate) name: String,
    /// The name in its metadata.
    #[diesel(sql_type = Nullable<Text>)]
    pub(crate) title: Option<String>,
    /// The life of the name.
    #[diesel(sql_type = BigInt)]
    pub(crate) epoch: i64,
    /// The first row that is not gone.
    #[diesel(sql_type = BigInt)]
    pub(crate) first_seq: i64,
    /// Rows behind it that were deleted by hand.
    #[diesel(sql_type = BigInt)]
    pub(crate) deleted_rows: i64,
    /// The newest row.
    #[diesel(sql_type = BigInt)]
    pub(crate) last_seq: i64,
    /// Revision of its metadata; null where it has none.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub(crate) revision: Option<i64>,
    /// Values at the paths of the filter, in the order of its clauses.
    #[diesel(sql_type = Json)]
    pub(crate) fields: Value,
    /// Whether the text was found.
    #[diesel(sql_type = Bool)]
    has_text: bool,
}

/// Batteries by name, and where to go on.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    /// The batteries.
    pub(crate) found: Vec<Found>,
    /// The name after which there may be more.
    pub(crate) next: Option<String>,
}

/// Finds batteries, looking at a bounded number of them.
///
/// # Errors
/// PostgreSQL is away or refuses.
pub(crate) fn find(connection: &mut PgConnection, search: &Search) -> Result<Answer, StoreError> {
    let mut found = Vec::new();
    let mut after = search.after.clone();
    let mut looked_at = 0;
    loop {
        let page: Vec<Found> = page_after(search, &after).load(connection)?;
        let is_last_page = page.len() < PAGE;
        looked_at += PAGE;
        for battery in page {
            if found.len() == search.limit {
                return Ok(Answer {
                    found,
                    next: Some(after),
                });
            }
            after.clone_from(&battery.name);
            if battery.has_text && is_met(&search.filter, &battery) {
                found.push(battery);
            }
        }
        if is_last_page {
            return Ok(Answer { found, next: None });
        }
        if looked_at >= MOST_LOOKED_AT {
            return Ok(Answer {
                found,
                next: Some(after),
            });
        }
    }
}

/// Only the values that are asked for leave PostgreSQL, not the documents.
fn page_after(search: &Search, after: &str) -> Statement {
    let mut separator = "";
    let mut statement = Statement::once().sql(
        "SELECT b.name, b.title, b.epoch, b.first_seq, b.last_seq, b.deleted_rows, m.revision, \
         json_build_array(",
    );
    for clause in &search.filter.clauses {
        let path = ArrayBind::texts(clause.path.iter().map(String::as_str));
        statement = statement
            .sql(separator)
            .sql("hub.field(coalesce(m.fields, '{}') || jsonb_build_object(");
        statement = statement
            .sql("'rows', b.last_seq - b.first_seq + 1 - b.deleted_rows, 'epoch', b.epoch), ");
        statement = statement.array(path).sql(")");
        separator = ", ";
    }
    statement = statement.sql(") AS fields, ");
    statement = match &search.text {
        None => statement.sql("true"),
        Some(text) => {
            let text = text.to_lowercase();
            let by_name = statement.sql("(position(").text(text.clone());
            let by_name = by_name.sql(" IN lower(b.name)) > 0 OR coalesce(position(");
            by_name
                .text(text)
                .sql(" IN lower(m.body::text)) > 0, false))")
        }
    };
    let statement = statement
        .sql(
            " AS has_text FROM hub.batteries b \
             LEFT JOIN hub.metadata m ON m.battery_id = b.id WHERE b.name > ",
        )
        .text(after);
    among(statement, &search.visible)
        .sql(" ORDER BY b.name LIMIT ")
        .long(i64::try_from(PAGE).unwrap_or(i64::MAX))
}

/// Bounds a statement to what may be seen.
fn among(statement: Statement, visible: &Visible) -> Statement {
    if visible.all {
        return statement;
    }
    let texts = |texts: &[String]| ArrayBind::texts(texts.iter().map(String::as_str));
    statement
        .sql(" AND (b.name = ANY(")
        .array(texts(&visible.names))
        .sql(") OR EXISTS (SELECT FROM unnest(")
        .array(texts(&visible.prefixes))
        .sql(") AS prefix WHERE starts_with(b.name, prefix)) AND b.name <> ALL(")
        .array(texts(&visible.except))
        .sql("))")
}

fn is_met(filter: &Filter, battery: &Found) -> bool {
    let mut values = battery.fields.as_array().into_iter().flatten();
    filter.matches(|_: &Clause| match values.next()? {
        Value::Number(number) => number.as_f64().map(Scalar::Number),
        Value::String(text) => Some(Scalar::Text(text.clone())),
        Value::Bool(truth) => Some(Scalar::Text(truth.to_string())),
        _ => None,
    })
}
