//! Metadata of batteries: names given by titles, the present version and every one before.

use diesel::{
    Connection, ExpressionMethods, OptionalExtension, PgConnection, PgExpressionMethods, QueryDsl,
    QueryResult, QueryableByName, RunQueryDsl, sql_query,
    sql_types::{BigInt, Nullable, Text},
};
use rovi_common::{
    auth::secret::hex,
    name::{self, BatteryName, MAX_NAME_BYTES},
};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{StoreError, schema::batteries::dsl};
use crate::metadata::Metadata;

/// Number of the advisory lock under which names are given and metadata change: `name` in ASCII.
const NAMES_LOCK: i64 = 0x6e61_6d65;

/// Whether the caller may have, or see, the battery of a name.
type May<'a> = &'a dyn Fn(&str) -> bool;

/// One version of a battery's metadata.
#[derive(Debug, Clone, PartialEq, QueryableByName)]
pub(crate) struct Version {
    /// Which version.
    #[diesel(sql_type = BigInt)]
    pub(crate) revision: i64,
    /// The document as it was sent.
    #[diesel(sql_type = Text)]
    pub(crate) body: String,
}

impl Version {
    /// Returns the validator that HTTP knows the version by; the battery's id is not in it, which tells
    /// how many others there are.
    pub(crate) fn etag(&self) -> String {
        let digest = Sha256::new().chain_update(self.revision.to_be_bytes());
        let digest = digest.chain_update(&self.body).finalize();
        format!("\"{}\"", hex(digest.get(..16).unwrap_or_default()))
    }
}

/// When a version was made, and by whom.
#[derive(Debug, Clone, PartialEq, QueryableByName)]
pub(crate) struct Listed {
    /// Which version.
    #[diesel(sql_type = BigInt)]
    pub(crate) revision: i64,
    /// Microseconds since 1970.
    #[diesel(sql_type = BigInt)]
    pub(crate) changed: i64,
    /// As the request said.
    #[diesel(sql_type = Nullable<Text>)]
    pub(crate) author: Option<String>,
    /// Size of the document.
    #[diesel(sql_type = BigInt)]
    pub(crate) bytes: i64,
}

/// A battery, and its present metadata if it has any.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Holder {
    id: i64,
    /// The present version.
    pub(crate) version: Option<Version>,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Changed<E> {
    /// This is the present version now.
    Done(Version),
    /// There is no such battery.
    NoBattery,
    /// Another battery that the caller may see has this title.
    Taken(String),
    /// The caller refused, having seen what is there.
    Refused(E),
}

/// What became of a registration; nothing was changed where it was not done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Registered<E> {
    /// The battery of this name has the metadata now.
    Done(String),
    /// The caller may not have the name that it would get.
    NotAllowed,
    /// The caller may make no battery now.
    Refused(E),
}

/// A battery that was found by its title, or made.
struct Named {
    id: i64,
    name: String,
    is_new: bool,
}

/// Keeps metadata under the battery of their title, which is found or named; returns its name.
///
/// Batteries that `may_have` refuses are not there for the caller: nobody learns or loses anything by
/// the title of one.
///
/// # Errors
/// PostgreSQL is away or refuses; nothing was changed.
pub(crate) fn register<E>(
    connection: &mut PgConnection,
    metadata: &Metadata,
    author: Option<&str>,
    (may_have, may_make): (May<'_>, &dyn Fn() -> Result<(), E>),
) -> Result<Registered<E>, StoreError> {
    let mut refused = None;
    let registered = connection.transaction(|connection| {
        lock_names(connection)?;
        let title = metadata.title.clone();
        let title = title.unwrap_or_else(|| Uuid::new_v4().to_string());
        let named = find_or_name(connection, &title, may_have)?;
        if !may_have(&named.name) {
            refused = Some(Registered::NotAllowed);
        } else if named.is_new
            && let Err(refusal) = may_make()
        {
            refused = Some(Registered::Refused(refusal));
        }
        if refused.is_some() {
            return Err(diesel::result::Error::RollbackTransaction.into());
        }
        let present = present(connection, named.id)?;
        write(connection, named.id, present, &metadata.text, author)?;
        Ok(Registered::Done(named.name))
    });
    refused.map_or(registered, Ok)
}

/// Changes a battery's metadata to what `change` makes of the present ones. Titles of batteries that
/// `may_see` refuses are free.
///
/// # Errors
/// PostgreSQL is away or refuses; nothing was changed.
pub(crate) fn change<E>(
    connection: &mut PgConnection,
    battery: &BatteryName,
    (author, may_see): (Option<&str>, May<'_>),
    change: impl FnOnce(Option<&Version>) -> Result<Metadata, E>,
) -> Result<Changed<E>, StoreError> {
    connection.transaction(|connection| {
        lock_names(connection)?;
        let Some(holder) = find(connection, battery.as_str())? else {
            return Ok(Changed::NoBattery);
        };
        let metadata = match change(holder.version.as_ref()) {
            Ok(metadata) => metadata,
            Err(refused) => return Ok(Changed::Refused(refused)),
        };
        if let Some(title) = metadata.title
            && !give_title(connection, holder.id, (&title, may_see))?
        {
            return Ok(Changed::Taken(title));
        }
        let version = write(
            connection,
            holder.id,
            holder.version,
            &metadata.text,
            author,
        )?;
        Ok(Changed::Done(version))
    })
}

/// Looks a battery's present metadata up; `None` where there is no battery.
///
/// # Errors
/// As diesel's.
pub(crate) fn find(connection: &mut PgConnection, battery: &str) -> QueryResult<Option<Holder>> {
    let id = dsl::batteries.filter(dsl::name.eq(battery)).select(dsl::id);
    let Some(id) = id.first(connection).optional()? else {
        return Ok(None);
    };
    let version = present(connection, id)?;
    Ok(Some(Holder { id, version }))
}

/// Looks up one version of a battery that was found.
///
/// # Errors
/// As diesel's.
pub(crate) fn version(
    connection: &mut PgConnection,
    holder: &Holder,
    revision: i64,
) -> QueryResult<Option<Version>> {
    sql_query(
        "SELECT revision, body::text AS body FROM hub.metadata_revisions \
         WHERE battery_id = $1 AND revision = $2",
    )
    .bind::<BigInt, _>(holder.id)
    .bind::<BigInt, _>(revision)
    .get_result(connection)
    .optional()
}

/// Lists up to `limit` versions below `before`, newest first.
///
/// # Errors
/// As diesel's.
pub(crate) fn versions(
    connection: &mut PgConnection,
    holder: &Holder,
    before: i64,
    limit: i64,
) -> QueryResult<Vec<Listed>> {
    sql_query(
        "SELECT revision, (extract(epoch FROM changed) * 1000000)::bigint AS changed, author, \
           octet_length(body::text)::bigint AS bytes FROM hub.metadata_revisions \
         WHERE battery_id = $1 AND revision < $2 ORDER BY revision DESC LIMIT $3",
    )
    .bind::<BigInt, _>(holder.id)
    .bind::<BigInt, _>(before)
    .bind::<BigInt, _>(limit)
    .load(connection)
}

fn lock_names(connection: &mut PgConnection) -> QueryResult<()> {
    sql_query("SELECT pg_advisory_xact_lock($1)")
        .bind::<BigInt, _>(NAMES_LOCK)
        .execute(connection)
        .map(drop)
}

fn present(connection: &mut PgConnection, id: i64) -> QueryResult<Option<Version>> {
    sql_query("SELECT revision, body::text AS body FROM hub.metadata WHERE battery_id = $1")
        .bind::<BigInt, _>(id)
        .get_result(connection)
        .optional()
}

/// Writes a version, unless the present one is the same.
fn write(
    connection: &mut PgConnection,
    id: i64,
    present: Option<Version>,
    body: &str,
    author: Option<&str>,
) -> QueryResult<Version> {
    if let Some(present) = present.filter(|present| present.body == body) {
        return Ok(present);
    }
    sql_query(
        "WITH kept AS ( \
           INSERT INTO hub.metadata AS known (battery_id, body, fields) \
           VALUES ($1, $2::json, $2::jsonb) ON CONFLICT (battery_id) DO UPDATE SET \
             body = excluded.body, fields = excluded.fields, changed = now(), \
             revision = known.revision + 1 \
           RETURNING battery_id, revision, body, changed \
         ) INSERT INTO hub.metadata_revisions (battery_id, revision, body, author, changed) \
           SELECT battery_id, revision, body, $3, changed FROM kept \
           RETURNING revision, body::text AS body",
    )
    .bind::<BigInt, _>(id)
    .bind::<Text, _>(body)
    .bind::<Nullable<Text>, _>(author)
    .get_result(connection)
}

/// Lists the batteries that have a title and may be known of; the one that is called after it first.
fn titled(
    connection: &mut PgConnection,
    title: &str,
    may_know: May<'_>,
) -> QueryResult<Vec<(i64, String)>> {
    let titled = dsl::batteries
        .filter(dsl::title.eq(title))
        .order((dsl::name.ne(name_for(title)), dsl::id))
        .select((dsl::id, dsl::name));
    let mut titled: Vec<(i64, String)> = titled.load(connection)?;
    titled.retain(|(_, name)| may_know(name));
    Ok(titled)
}

/// The name that a title asks for.
fn name_for(title: &str) -> String {
    match title.parse::<BatteryName>() {
        Ok(name) => name.into(),
        Err(_no_name) => name::slug(title),
    }
}

/// Gives a battery a title; false where another one that may be seen has it.
fn give_title(
    connection: &mut PgConnection,
    id: i64,
    (title, may_see): (&str, May<'_>),
) -> QueryResult<bool> {
    let holders = titled(connection, title, may_see)?;
    if holders.iter().any(|(holder, _)| *holder != id) {
        return Ok(false);
    }
    let untitled = dsl::batteries
        .find(id)
        .filter(dsl::title.is_distinct_from(title));
    diesel::update(untitled)
        .set(dsl::title.eq(title))
        .execute(connection)?;
    Ok(true)
}

/// Finds the battery of a title, or gives it a name.
fn find_or_name(
    connection: &mut PgConnection,
    title: &str,
    may_have: May<'_>,
) -> QueryResult<Named> {
    let named = |is_new| move |(id, name)| Named { id, name, is_new };
    if let Some(known) = titled(connection, title, may_have)?.into_iter().next() {
        return Ok(named(false)(known));
    }
    let name = name_for(title);
    // Rows came before the metadata: the battery has its name and no title yet.
    let untitled = dsl::batteries
        .filter(dsl::name.eq(&name))
        .filter(dsl::title.is_null());
    let adopted = diesel::update(untitled)
        .set(dsl::title.eq(title))
        .returning((dsl::id, dsl::name))
        .get_result(connection)
        .optional()?;
    if let Some(adopted) = adopted {
        return Ok(named(false)(adopted));
    }
    for number in 1_u32.. {
        let given = diesel::insert_into(dsl::batteries)
            .values((dsl::name.eq(numbered(&name, number)), dsl::title.eq(title)))
            .on_conflict(dsl::name)
            .do_nothing()
            .returning((dsl::id, dsl::name))
            .get_result(connection)
            .optional()?;
        if let Some(given) = given {
            return Ok(named(true)(given));
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
}
