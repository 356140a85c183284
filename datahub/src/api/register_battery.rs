//! `POST /db/register`: metadata of a battery.

use actix_web::{HttpResponse, http::StatusCode, web};
use diesel::{
    Connection, ExpressionMethods, OptionalExtension, PgConnection, QueryDsl, QueryResult,
    RunQueryDsl, sql_query, sql_types,
};
use rovi_common::{
    http::Problem,
    name::{self, MAX_NAME_BYTES},
};
use serde_json::Value;
use uuid::Uuid;

use crate::{hub::Hub, store::schema::batteries::dsl};

/// Most bytes of metadata.
pub(crate) const MAX_BYTES: usize = 1 << 20;
/// Number of the advisory lock under which names are given: `name` in ASCII.
const NAMES_LOCK: i64 = 0x6e61_6d65;

/// Keeps a battery's metadata and answers its name; the same name again replaces them.
#[utoipa::path(
    post,
    path = "/db/register",
    tag = "batteries",
    request_body(content = Object, description = "battdat's `BatteryMetadata`; kept as sent"),
    responses(
        (status = 200, body = String, description = "The name to use everywhere"),
        (status = 400, body = Problem), (status = 413, body = Problem),
        (status = 503, body = Problem),
    )
)]
pub(crate) async fn register_battery(
    body: Result<web::Bytes, actix_web::Error>,
    hub: web::Data<Hub>,
) -> Result<HttpResponse, Problem> {
    let body = body.map_err(|error| unread(&error))?;
    let text = str::from_utf8(&body)
        .map_err(|error| Problem::bad_request(format!("the metadata are not UTF-8: {error}")))?;
    let title = title_of(text)?;
    let text = text.to_owned();
    let register = move |connection: &mut PgConnection| {
        connection.transaction(|connection| Ok(register(connection, title.as_deref(), &text)?))
    };
    let name = hub.pool.run(register).await?;
    tracing::info!(battery.id = name, "metadata of battery {name} registered");
    Ok(HttpResponse::Ok().json(name))
}

/// Says why a body was not read.
fn unread(error: &actix_web::Error) -> Problem {
    if error.as_response_error().status_code() == StatusCode::PAYLOAD_TOO_LARGE {
        return Problem::too_large(format!("the metadata are larger than {MAX_BYTES} bytes"));
    }
    Problem::bad_request(format!("the body broke off: {error}"))
}

/// Checks metadata and returns the name they give, if they give one.
fn title_of(text: &str) -> Result<Option<String>, Problem> {
    let metadata: Value = serde_json::from_str(text)
        .map_err(|error| Problem::bad_request(format!("the metadata are no JSON: {error}")))?;
    let Value::Object(metadata) = metadata else {
        return Err(Problem::bad_request("the metadata are no JSON object"));
    };
    match metadata.get("name") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(name)) if name.is_empty() => {
            Err(Problem::bad_request("`name` is empty; leave it out to get one").at("name"))
        }
        Some(Value::String(name)) if name.contains('\0') => {
            Err(Problem::bad_request("`name` holds a NUL character").at("name"))
        }
        Some(Value::String(name)) => Ok(Some(name.clone())),
        Some(other) => {
            let detail = format!("`name` must be a text, it is {other}");
            Err(Problem::bad_request(detail).at("name"))
        }
    }
}

fn register(
    connection: &mut PgConnection,
    title: Option<&str>,
    metadata: &str,
) -> QueryResult<String> {
    sql_query("SELECT pg_advisory_xact_lock($1)")
        .bind::<sql_types::BigInt, _>(NAMES_LOCK)
        .execute(connection)?;
    let title = title.map_or_else(|| Uuid::new_v4().to_string(), str::to_owned);
    let (id, name) = find_or_name(connection, &title)?;
    sql_query(
        "INSERT INTO hub.metadata (battery_id, body) VALUES ($1, $2::json) \
         ON CONFLICT (battery_id) DO UPDATE SET body = excluded.body, changed = now()",
    )
    .bind::<sql_types::BigInt, _>(id)
    .bind::<sql_types::Text, _>(metadata)
    .execute(connection)?;
    Ok(name)
}

/// Finds the battery of a title, or gives it a name.
fn find_or_name(connection: &mut PgConnection, title: &str) -> QueryResult<(i64, String)> {
    let known = dsl::batteries
        .filter(dsl::title.eq(title))
        .select((dsl::id, dsl::name))
        .first(connection)
        .optional()?;
    if let Some(known) = known {
        return Ok(known);
    }
    // Rows came before the metadata: the battery has its name and no title yet.
    let untitled = dsl::batteries
        .filter(dsl::name.eq(title))
        .filter(dsl::title.is_null());
    let adopted = diesel::update(untitled)
        .set(dsl::title.eq(title))
        .returning((dsl::id, dsl::name))
        .get_result(connection)
        .optional()?;
    if let Some(adopted) = adopted {
        return Ok(adopted);
    }
    let slug = name::slug(title);
    for number in 1_u32.. {
        let given = diesel::insert_into(dsl::batteries)
            .values((dsl::name.eq(numbered(&slug, number)), dsl::title.eq(title)))
            .on_conflict(dsl::name)
            .do_nothing()
            .returning((dsl::id, dsl::name))
            .get_result(connection)
            .optional()?;
        if let Some(given) = given {
            return Ok(given);
        }
    }
    Err(diesel::result::Error::NotFound)
}

/// Appends `-2`, `-3` … to a slug, within the bound of names.
fn numbered(slug: &str, number: u32) -> String {
    if number == 1 {
        return slug.to_owned();
    }
    let suffix = format!("-{number}");
    let room = MAX_NAME_BYTES - suffix.len();
    let start: String = slug.chars().take(room).collect();
    start + &suffix
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numbered_slug_is_a_name() {
        assert_eq!(numbered("b7", 1), "b7");
        let long = numbered(&"a".repeat(63), 12);
        assert!(long.ends_with("a-12") && long.len() == 63, "{long}");
    }

    #[test]
    fn metadata_are_an_object_whose_name_is_a_text() {
        assert_eq!(title_of("{}").unwrap(), None);
        assert_eq!(title_of(r#"{"name": "Ü"}"#).unwrap(), Some("Ü".to_owned()));
        for wrong in ["[]", "{", "5", r#"{"name": 5}"#, r#"{"name": ""}"#] {
            assert_eq!(title_of(wrong).unwrap_err().status.as_u16(), 400, "{wrong}");
        }
    }
}
