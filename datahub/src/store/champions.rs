//! `hub.champions`: which estimator of a battery is its champion, from which row on.
//!
//! Whatever changes registrations settles the champion in the same transaction, behind the lock of
//! the battery's line that also gives out `seq`: so each row has exactly one, and nothing in between.

use diesel::{
    OptionalExtension, PgConnection, QueryResult, QueryableByName, RunQueryDsl, sql_query,
    sql_types::{BigInt, Nullable, Text},
};
use rovi_common::{
    name::{BatteryName, EstimatorName},
    registration::Champion,
};

#[derive(QueryableByName)]
struct Battery {
    #[diesel(sql_type = BigInt)]
    id: i64,
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    #[diesel(sql_type = BigInt)]
    last_seq: i64,
}

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = BigInt)]
    era: i64,
    #[diesel(sql_type = Nullable<Text>)]
    estimator: Option<String>,
    #[diesel(sql_type = BigInt)]
    epoch: i64,
    #[diesel(sql_type = BigInt)]
    from_seq: i64,
}

impl From<Line> for Champion {
    fn from(line: Line) -> Self {
        Self {
            era: line.era,
            estimator: line.estimator.and_then(|name| name.parse().ok()),
            epoch: line.epoch,
            from_seq: line.from_seq,
        }
    }
}

/// A battery whose rows and champion stand still until the transaction ends.
pub(super) struct Held(Battery);

/// Takes a battery's turn; `None` where it is not known.
pub(super) fn hold(conn: &mut PgConnection, battery: &BatteryName) -> QueryResult<Option<Held>> {
    let line = sql_query(
        "SELECT id, epoch, last_seq FROM hub.batteries WHERE name = $1 FOR NO KEY UPDATE",
    )
    .bind::<Text, _>(battery.as_str())
    .get_result(conn)
    .optional()?;
    Ok(line.map(Held))
}

/// Reads the champion in force.
pub(super) fn newest(
    conn: &mut PgConnection,
    battery: &BatteryName,
) -> QueryResult<Option<Champion>> {
    let line: Option<Line> = sql_query(
        "SELECT line.era, line.estimator, line.epoch, line.from_seq \
         FROM hub.champions line JOIN hub.batteries known ON known.id = line.battery_id \
         WHERE known.name = $1 ORDER BY line.epoch DESC, line.from_seq DESC LIMIT 1",
    )
    .bind::<Text, _>(battery.as_str())
    .get_result(conn)
    .optional()?;
    Ok(line.map(Champion::from))
}

/// Makes the champion right again after registrations changed, and returns the one in force.
///
/// `promoted` becomes it, else the present one stays while it is registered, else the one that was
/// it last and still is registered, else `default`. The rows stored from now on are its rows; the
/// first champion of all has every row.
pub(super) fn settle(
    conn: &mut PgConnection,
    (battery, held): (&BatteryName, &Held),
    promoted: Option<&EstimatorName>,
) -> QueryResult<Option<Champion>> {
    #[derive(QueryableByName)]
    struct Next {
        #[diesel(sql_type = Text)]
        name: String,
    }
    let present = newest(conn, battery)?;
    let next: Option<Next> = sql_query(
        "SELECT known.name FROM hub.estimators known LEFT JOIN hub.champions line \
           ON line.battery_id = known.battery_id AND line.estimator = known.name \
         WHERE known.battery_id = $1 AND NOT known.deleted \
           AND (line.estimator IS NOT NULL OR known.name IN ($2, $3)) \
         ORDER BY known.name = $2 DESC, line.epoch DESC NULLS LAST, \
           line.from_seq DESC NULLS LAST LIMIT 1",
    )
    .bind::<BigInt, _>(held.0.id)
    .bind::<Text, _>(promoted.map_or("", EstimatorName::as_str))
    .bind::<Text, _>(EstimatorName::default().as_str())
    .get_result(conn)
    .optional()?;
    let next = next.map(|next| next.name);
    let stays = match &present {
        None => next.is_none(),
        Some(champion) => champion.estimator.as_ref().map(EstimatorName::as_str) == next.as_deref(),
    };
    if stays {
        return Ok(present);
    }
    let from_seq = present.map_or(1, |_| held.0.last_seq + 1);
    let line: Line = sql_query(
        "INSERT INTO hub.champions AS line (battery_id, epoch, from_seq, estimator) \
         VALUES ($1, $2, $3, $4) ON CONFLICT (battery_id, epoch, from_seq) DO UPDATE SET \
           estimator = excluded.estimator, era = excluded.era, since = clock_timestamp() \
         RETURNING line.era, line.estimator, line.epoch, line.from_seq",
    )
    .bind::<BigInt, _>(held.0.id)
    .bind::<BigInt, _>(held.0.epoch)
    .bind::<BigInt, _>(from_seq)
    .bind::<Nullable<Text>, _>(next)
    .get_result(conn)?;
    Ok(Some(line.into()))
}

/// Has the champion in force settled anew: twins know of a later one, which a backup lacks.
pub(super) fn renew(conn: &mut PgConnection, battery: &BatteryName) -> QueryResult<()> {
    sql_query(
        "UPDATE hub.champions line SET era = nextval('hub.revisions') \
         FROM hub.batteries known WHERE known.id = line.battery_id AND known.name = $1 \
           AND line.era = (SELECT max(era) FROM hub.champions WHERE battery_id = known.id)",
    )
    .bind::<Text, _>(battery.as_str())
    .execute(conn)
    .map(drop)
}
