//! Tables that change: under several writers, and by hands that are not the hub's.

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{TestHub, execute, postgres, query};

fn journal(of: &Value) -> Vec<&str> {
    let changes = of["changes"].as_array().unwrap().iter();
    changes
        .map(|change| change["change"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_two_hubs_add_at_once_with_other_types_ends_well_at_both() {
    let postgres = postgres();
    let hubs = [
        TestHub::start(&postgres).await,
        TestHub::start(&postgres).await,
    ];
    for round in 0..8 {
        let column = format!("c{round}");
        let mut sends = JoinSet::new();
        for (hub, value) in [
            (0, json!(1)),
            (1, json!(0.5)),
            (0, json!(true)),
            (1, json!("x")),
        ] {
            let (mut client, _) = hubs[hub].speaking("b7").await;
            let row = json!([{ column.as_str(): null, "n": round }, { column.as_str(): value }]);
            sends.spawn(async move {
                client.send(&row).await;
                client.until_stored(2).await
            });
        }
        let mut rejects = Vec::new();
        while let Some(rejected) = sends.join_next().await {
            rejects.extend(rejected.unwrap());
        }
        // A number leaves room for the other one, a truth or a text for nothing else.
        assert!((2..=3).contains(&rejects.len()), "{rejects:?}");
        for reject in rejects {
            let reason = reject["reason"].as_str().unwrap();
            assert!(
                reason.starts_with(&format!("column `{column}` is ")),
                "{reason}"
            );
        }
    }
    let counted = query(
        &postgres,
        r#"SELECT count(*) = max(seq) AS dense, count(*) + (SELECT count(*) FROM hub.rejected_rows)
           AS rows FROM battery."b7""#,
    );
    assert_eq!(counted, json!([{"dense": true, "rows": 64}]));
    let (_, changes) = hubs[0].ask("GET", "/db/b7/changes", Value::Null).await;
    let changes = journal(&changes);
    for round in 0..8 {
        let added = changes
            .iter()
            .filter(|change| change.starts_with(&format!("column \"c{round}\" added")));
        assert_eq!(added.count(), 1, "{changes:?}");
    }
}

#[tokio::test]
async fn a_truth_or_a_text_where_a_number_was_is_rejected_and_so_is_the_column_beyond_the_limit() {
    let postgres = postgres();
    let hub = TestHub::start_with(&postgres, |settings| settings.columns = 3).await;
    hub.post_rows("b7", json!([{"a": 1, "b": 0.5, "c": true}]))
        .await;
    let (mut client, hello) = hub.speaking("b7").await;
    assert_eq!(hello["limits"]["columns"], 3);
    for row in [
        json!({"a": true}),
        json!({"b": "x"}),
        json!({"c": 1}),
        json!({"d": 1}),
        json!({"d": null, "a": 2.5}),
    ] {
        client.send(&row).await;
    }
    let rejects = client.until_stored(5).await;
    let reasons: Vec<&str> = rejects
        .iter()
        .map(|reject| reject["reason"].as_str().unwrap())
        .collect();
    assert_eq!(
        reasons,
        [
            "column `a` is integer, the row has boolean true",
            "column `b` is float, the row has text \"x\"",
            "column `c` is boolean, the row has integer 1",
            "column `d` is not added: the table has 3 columns, the limit",
        ]
    );
    let (_, changes) = hub.ask("GET", "/db/b7/changes?limit=4", Value::Null).await;
    assert_eq!(
        (journal(&changes).len(), &changes["more"]),
        (4, &json!(true))
    );
    let after = format!("/db/b7/changes?after={}", changes["changes"][3]["id"]);
    let (_, rest) = hub.ask("GET", &after, Value::Null).await;
    assert_eq!(journal(&rest), ["column \"a\" widened to double precision"]);
    assert_eq!(rest["changes"][0]["after_seq"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_dropped_by_hand_begins_a_new_epoch_and_the_journal_tells() {
    let postgres = postgres();
    let hubs = [
        TestHub::start(&postgres).await,
        TestHub::start(&postgres).await,
    ];
    let mut clients = Vec::new();
    for hub in &hubs {
        let (mut client, _) = hub.speaking("b7").await;
        client.send(&json!({"a": [1, 2]})).await;
        client.until_stored(2).await;
        clients.push(client);
    }
    execute(&postgres, r#"DROP TABLE battery."b7""#);
    for client in &mut clients {
        client.send(&json!({"a": [3, 4]})).await;
        assert_eq!(client.until_stored(4).await, Vec::<Value>::new());
    }
    assert_eq!(
        query(
            &postgres,
            r#"SELECT seq, segment, a FROM battery."b7" ORDER BY seq"#
        ),
        json!([
            {"seq": 1, "segment": 1, "a": 3}, {"seq": 2, "segment": 1, "a": 4},
            {"seq": 3, "segment": 1, "a": 3}, {"seq": 4, "segment": 1, "a": 4},
        ])
    );
    let (_, changes) = hubs[0].ask("GET", "/db/b7/changes", Value::Null).await;
    assert_eq!(
        journal(&changes)[2..],
        [
            "the table is gone: somebody dropped or renamed it, with rows 1 to 4; epoch 2 begins",
            "table made",
            "column \"a\" added as bigint",
        ]
    );
    let rows = reqwest::get(hubs[1].url("/db/b7/rows")).await.unwrap();
    assert_eq!(rows.headers()["Rovi-Epoch"], "2");
}

#[tokio::test]
async fn a_column_dropped_by_hand_comes_back_empty_and_one_of_another_type_is_told() {
    let postgres = postgres();
    let hub = TestHub::start(&postgres).await;
    let (mut client, _) = hub.speaking("b7").await;
    client.send(&json!({"a": 1, "b": 0.5})).await;
    client.until_stored(1).await;
    execute(&postgres, r#"ALTER TABLE battery."b7" DROP COLUMN b"#);
    client.send(&json!({"a": 2, "b": 1.5})).await;
    assert_eq!(client.until_stored(2).await, Vec::<Value>::new());
    execute(&postgres, r#"ALTER TABLE battery."b7" ALTER a TYPE text"#);
    client.send(&json!([{"a": 3}, {"a": "x"}])).await;
    let rejects = client.until_stored(4).await;
    assert_eq!(rejects.len(), 1);
    assert_eq!(
        rejects[0]["reason"],
        "column `a` is text, the row has integer 3"
    );
    assert_eq!(
        query(
            &postgres,
            r#"SELECT seq, a, b FROM battery."b7" ORDER BY seq"#
        ),
        json!([
            {"seq": 1, "a": "1", "b": null}, {"seq": 2, "a": "2", "b": 1.5},
            {"seq": 3, "a": "x", "b": null},
        ])
    );
}
