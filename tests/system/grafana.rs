//! The dashboards of `deploy/grafana`, asked of a real stack as Grafana would.

use std::{fs, path::PathBuf, time::Duration};

use rovi_common::testing::eventually;
use rovicli::simulation::{Plan, estimator_document};
use serde_json::{Value, json};
use system_tests::Stack;

const PATIENCE: Duration = Duration::from_secs(30);
/// The battery that is looked at; a name that needs quotes.
const BATTERY: &str = "Cell-1";

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/grafana"))
}

/// Reads the dashboards with their file names.
fn dashboards() -> Vec<(String, Value)> {
    let files = fs::read_dir(folder().join("dashboards")).unwrap();
    let mut all: Vec<_> = files
        .map(|file| {
            let path = file.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            (
                path.display().to_string(),
                serde_json::from_str(&text).unwrap(),
            )
        })
        .collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all
}

/// Collects the texts under a key, wherever they stand.
fn texts<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(key).and_then(Value::as_str));
            fields.values().for_each(|field| texts(field, key, found));
        }
        Value::Array(items) => items.iter().for_each(|item| texts(item, key, found)),
        _ => {}
    }
}

/// Replaces `$__name(arguments)` by what `with` makes of the arguments.
fn expand(sql: &str, name: &str, with: impl Fn(&str) -> String) -> String {
    let begin = format!("$__{name}(");
    let mut parts = sql.split(&begin);
    let mut expanded = parts.next().unwrap().to_owned();
    for part in parts {
        let (arguments, rest) = part.split_once(')').unwrap();
        expanded += &with(arguments);
        expanded += rest;
    }
    expanded
}

/// Writes a question as Grafana sends it: macros and variables replaced.
fn as_sent(sql: &str) -> String {
    let sql = sql
        .replace("$battery", BATTERY)
        .replace("$__interval", "10s");
    let sql = expand(&sql, "timeGroupAlias", |arguments| {
        let (column, interval) = arguments.split_once(',').unwrap();
        assert_eq!(interval, "10s");
        format!("floor(extract(epoch from {column})/10)*10 AS \"time\"")
    });
    let sql = expand(&sql, "timeFilter", |column| {
        format!("{column} BETWEEN '2000-01-01T00:00:00Z' AND '2100-01-01T00:00:00Z'")
    });
    assert!(!sql.contains('$'), "not replaced: {sql}");
    sql
}

/// Uploads two cycles and registers an estimator; waits until all that is shown is there.
async fn fill(stack: &Stack) {
    let row = |n: i32| {
        let current = if n % 10 < 5 { -0.5 } else { 0.5 };
        json!({
            "test_time": f64::from(n), "current": current, "voltage": 3.7 + 0.01 * current,
            "temperature": 25.0, "cycle_number": 1 + n / 10,
        })
    };
    let rows: Vec<Value> = (0..20).map(row).collect();
    let url = format!("{}/db/upload/{BATTERY}", stack.hub_url());
    let answer = stack.http().post(url).json(&rows).send().await.unwrap();
    assert!(answer.status().is_success());
    let document = estimator_document(&Plan::default()).to_string();
    let form = [("name", BATTERY), ("definition", document.as_str())];
    let url = format!("{}/online/register", stack.hub_url());
    let answer = stack.http().post(url).form(&form).send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
    let mut database = stack.database();
    let there = format!(
        "SELECT count(*) AS value FROM hub.cycles WHERE battery = '{BATTERY}' AND is_complete"
    );
    eventually(PATIENCE, || {
        let cycles = database.number(&there);
        async move { (cycles > 0).then_some(()).ok_or("no complete cycle") }
    })
    .await;
    let table = format!(
        "SELECT count(*) AS value FROM pg_tables \
                         WHERE schemaname = 'estimates' AND tablename = '{BATTERY}'"
    );
    eventually(PATIENCE, || {
        let tables = database.number(&table);
        async move { (tables > 0).then_some(()).ok_or("no estimates") }
    })
    .await;
}

#[tokio::test]
async fn every_question_of_the_dashboards_is_answered_with_rows_to_the_role_that_only_reads() {
    let stack = Stack::start().await;
    let mut database = stack.database();
    // The role comes before the battery: its tables must be readable, too.
    let reader = fs::read_to_string(folder().join("reader.sql")).unwrap();
    database.run(&reader);
    database.run(&reader);
    fill(&stack).await;

    let mut asked = 0;
    let mut grafana = stack.database();
    grafana.run("SET ROLE grafana");
    for (file, dashboard) in dashboards() {
        let mut questions = Vec::new();
        texts(&dashboard["panels"], "rawSql", &mut questions);
        texts(&dashboard["templating"], "query", &mut questions);
        for question in questions {
            let sent = as_sent(question);
            println!("{file}: {sent}");
            let count = format!("SELECT count(*) AS value FROM ({sent}) AS answer");
            assert!(grafana.number(&count) > 0, "{file}: no rows: {sent}");
            asked += 1;
        }
    }
    assert!(asked >= 10, "only {asked} questions were found");
    for secret in ["hub.tokens", "hub.audit", "hub.sessions"] {
        let may = format!(
            "SELECT has_table_privilege('grafana', '{secret}', 'SELECT')::int::bigint AS value"
        );
        assert_eq!(database.number(&may), 0, "{secret}");
    }
    let may = "SELECT has_column_privilege('grafana', 'hub.batteries', 'holder', 'SELECT')";
    assert_eq!(
        database.number(&format!("{may}::int::bigint AS value")),
        0,
        "sessions by their names"
    );
    let may = format!(
        "SELECT has_table_privilege('grafana', 'battery.\"{BATTERY}\"', 'INSERT')::int::bigint AS value"
    );
    assert_eq!(database.number(&may), 0);
}

#[tokio::test]
async fn every_metric_of_the_dashboards_is_served() {
    let stack = Stack::start().await;
    let mut served = String::new();
    for service in [stack.hub_url(), stack.twin_url()] {
        let answer = stack.http().get(format!("{service}/metrics")).send().await;
        served += &answer.unwrap().text().await.unwrap();
    }
    let mut metrics = 0;
    for (file, dashboard) in dashboards() {
        let mut questions = Vec::new();
        texts(&dashboard, "expr", &mut questions);
        for question in questions {
            let words = question.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let ours =
                words.filter(|word| word.starts_with("datahub_") || word.starts_with("twin_"));
            for metric in ours {
                assert!(
                    served.contains(&format!("\n{metric}")),
                    "{file}: no {metric}"
                );
                metrics += 1;
            }
        }
    }
    assert!(metrics >= 10, "only {metrics} metrics were found");
}
