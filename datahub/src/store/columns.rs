//! What columns mean: units and descriptions, as people gave them or as battdat has them.
//!
//! What people give stands in `hub.columns` and as `COMMENT` on the table's column. It belongs to
//! the name, not to the column: it survives every change of the table, may be given before the
//! column exists, and serves the next epoch, too.

use std::collections::BTreeMap;

use diesel::{
    PgConnection, QueryResult, QueryableByName, RunQueryDsl,
    connection::SimpleConnection,
    sql_query,
    sql_types::{Array, BigInt, Nullable, Text},
};

use super::batteries::Line;

/// What a column means.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meaning {
    /// The unit as written, such as `V`.
    pub unit: Option<String>,
    /// What the column holds, in words.
    pub description: Option<String>,
}

/// The columns of battdat's `raw_data`: name, unit, description.
const KNOWN: [(&str, &str, &str); 17] = [
    ("test_time", "s", "Time from the beginning of the test"),
    ("voltage", "V", "Measured voltage"),
    ("current", "A", "Measured current; positive when charging"),
    ("temperature", "C", "Temperature of the battery"),
    ("time", "s", "Time of the measurement since 1970-01-01 UTC"),
    (
        "file_number",
        "",
        "Which of several original files the row came from",
    ),
    (
        "state",
        "",
        "Whether the battery is charged, discharged or at rest",
    ),
    ("method", "", "How charge or discharge is controlled"),
    ("step_index", "", "Number of the step within the cycle"),
    (
        "substep_index",
        "",
        "Counts changes of the control method within the cycle",
    ),
    ("cycle_time", "s", "Time from the beginning of the cycle"),
    ("cycle_number", "", "Number of the cycle, from 0"),
    (
        "cycle_capacity",
        "A-hr",
        "Charge since the beginning of the cycle; positive when discharged",
    ),
    (
        "cycle_energy",
        "J",
        "Energy since the beginning of the cycle; positive when discharged",
    ),
    (
        "cycle_capacity_charge",
        "A-hr",
        "Charge since the beginning of the cycle, while charging only",
    ),
    (
        "cycle_capacity_discharge",
        "A-hr",
        "Charge since the beginning of the cycle, while discharging only",
    ),
    ("internal_resistance", "ohm", "Internal resistance"),
];

/// The columns that every table has before those of the rows: name and comment.
const OWN: [(&str, &str); 3] = [
    (
        "seq",
        "Order of storing within the epoch, from 1 without gaps",
    ),
    ("received", "When the hub took the row"),
    ("segment", "The test within the battery's life"),
];

impl Meaning {
    /// Returns what battdat says of a column of this name; nothing for one that it does not know.
    pub fn known(name: &str) -> Self {
        let known = KNOWN.iter().find(|(known, ..)| *known == name);
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        known.map_or_else(Self::default, |(_, unit, description)| Self {
            unit: text(unit),
            description: text(description),
        })
    }

    /// Fills what is missing from what battdat says.
    fn or_known(self, name: &str) -> Self {
        let known = Self::known(name);
        Self {
            unit: self.unit.or(known.unit),
            description: self.description.or(known.description),
        }
    }

    /// Returns the comment of the column; `None` where nothing is known.
    fn comment(&self) -> Option<String> {
        match (&self.description, &self.unit) {
            (Some(description), Some(unit)) => Some(format!("{description} [{unit}]")),
            (Some(description), None) => Some(description.clone()),
            (None, Some(unit)) => Some(format!("[{unit}]")),
            (None, None) => None,
        }
    }
}

#[derive(QueryableByName)]
struct Described {
    #[diesel(sql_type = Text)]
    battery: String,
    #[diesel(sql_type = Text)]
    name: String,
    #[diesel(sql_type = Nullable<Text>)]
    unit: Option<String>,
    #[diesel(sql_type = Nullable<Text>)]
    description: Option<String>,
}

/// What people said of columns, by battery and column.
pub type Given = BTreeMap<String, BTreeMap<String, Meaning>>;

/// Reads what people said of the columns of one battery, or of all.
///
/// # Errors
/// As diesel's.
pub fn given(connection: &mut PgConnection, battery: Option<i64>) -> QueryResult<Given> {
    let described: Vec<Described> = sql_query(
        "SELECT b.name AS battery, c.name, c.unit, c.description \
         FROM hub.columns c JOIN hub.batteries b ON b.id = c.battery_id \
         WHERE $1 IS NULL OR b.id = $1",
    )
    .bind::<Nullable<BigInt>, _>(battery)
    .load(connection)?;
    let mut given = Given::new();
    for one in described {
        let meaning = Meaning {
            unit: one.unit,
            description: one.description,
        };
        given
            .entry(one.battery)
            .or_default()
            .insert(one.name, meaning);
    }
    Ok(given)
}

/// Returns what each of these columns means; those of which nothing is known have an empty one.
pub fn meanings<'n>(
    given: Option<&BTreeMap<String, Meaning>>,
    names: impl IntoIterator<Item = &'n str>,
) -> BTreeMap<String, Meaning> {
    let meaning = |name: &str| {
        let given = given.and_then(|given| given.get(name)).cloned();
        given.unwrap_or_default().or_known(name)
    };
    names
        .into_iter()
        .map(|name| (name.to_owned(), meaning(name)))
        .collect()
}

/// Returns what columns of a battery mean, by name: what people gave, else what battdat says.
///
/// # Errors
/// As diesel's.
pub fn of_battery<'n>(
    connection: &mut PgConnection,
    line: &Line,
    names: impl IntoIterator<Item = &'n str>,
) -> QueryResult<BTreeMap<String, Meaning>> {
    let given = given(connection, Some(line.id))?;
    Ok(meanings(given.get(&line.name), names))
}

/// Keeps what people say of columns; what is empty is forgotten.
pub(crate) fn keep(
    connection: &mut PgConnection,
    battery_id: i64,
    said: &BTreeMap<String, Meaning>,
) -> QueryResult<()> {
    for (name, meaning) in said {
        if *meaning == Meaning::default() {
            sql_query("DELETE FROM hub.columns WHERE battery_id = $1 AND name = $2")
                .bind::<BigInt, _>(battery_id)
                .bind::<Text, _>(name)
                .execute(connection)?;
            continue;
        }
        sql_query(
            "INSERT INTO hub.columns (battery_id, name, unit, description) \
             VALUES ($1, $2, $3, $4) ON CONFLICT (battery_id, name) \
             DO UPDATE SET unit = excluded.unit, description = excluded.description",
        )
        .bind::<BigInt, _>(battery_id)
        .bind::<Text, _>(name)
        .bind::<Nullable<Text>, _>(&meaning.unit)
        .bind::<Nullable<Text>, _>(&meaning.description)
        .execute(connection)?;
    }
    Ok(())
}

/// Writes the comments of columns that the table has; the caller holds the battery's line.
///
/// # Errors
/// As diesel's; the caller rolls back.
pub(crate) fn comment<'n>(
    connection: &mut PgConnection,
    line: &Line,
    names: impl IntoIterator<Item = &'n str>,
) -> QueryResult<()> {
    let meanings = of_battery(connection, line, names)?.into_iter();
    let comments = meanings.map(|(name, meaning)| (name, meaning.comment()));
    write_comments(connection, line, comments.unzip())
}

/// Writes the comments of a new table; the caller holds the battery's line.
///
/// # Errors
/// As diesel's; the caller rolls back.
pub(super) fn comment_new<'n>(
    connection: &mut PgConnection,
    line: &Line,
    names: impl IntoIterator<Item = &'n str>,
) -> QueryResult<()> {
    let own = OWN.map(|(name, text)| (name.to_owned(), Some(text.to_owned())));
    let meanings = of_battery(connection, line, names)?.into_iter();
    let known = meanings.filter_map(|(name, meaning)| Some((name, Some(meaning.comment()?))));
    write_comments(connection, line, own.into_iter().chain(known).unzip())
}

#[derive(QueryableByName)]
struct Command {
    #[diesel(sql_type = Text)]
    command: String,
}

/// Writes the comments of these columns, all at once: a fleet makes thousands of tables. `COMMENT`
/// takes no binds, so PostgreSQL quotes names and texts itself.
fn write_comments(
    connection: &mut PgConnection,
    line: &Line,
    (columns, texts): (Vec<String>, Vec<Option<String>>),
) -> QueryResult<()> {
    if columns.is_empty() {
        return Ok(());
    }
    let command: Command = sql_query(
        "SELECT string_agg(format('COMMENT ON COLUMN battery.%I.%I IS %L', \
         $1, name, text), '; ') AS command FROM unnest($2, $3) AS given (name, text)",
    )
    .bind::<Text, _>(&line.name)
    .bind::<Array<Text>, _>(columns)
    .bind::<Array<Nullable<Text>>, _>(texts)
    .get_result(connection)?;
    connection.batch_execute(&command.command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_say_comes_before_what_battdat_says() {
        let said = Meaning {
            unit: Some("mV".into()),
            description: None,
        };
        let given = BTreeMap::from([("voltage".to_owned(), said)]);
        let meanings = meanings(Some(&given), ["voltage", "current", "x"]);
        let comment = |name: &str| meanings.get(name).unwrap().comment();
        assert_eq!(comment("voltage").unwrap(), "Measured voltage [mV]");
        assert_eq!(
            comment("current").unwrap(),
            "Measured current; positive when charging [A]"
        );
        assert_eq!(comment("x"), None);
    }
}
