//! Rules of alerts over real servers: durable, and told to twins whatever happens to the bus.

use std::sync::Arc;

use datahub::alert_rules::AlertRules;
use rovi_common::{
    alerts::{AlertRule, AlertRuleReply},
    streams::{self, BusSettings},
    subjects,
    testing::eventually,
};
use serde_json::{Value, json};

use crate::support::{PATIENCE, Parts, Servers};

async fn ask(parts: &Parts, subject: &'static str, request: Value) -> AlertRuleReply {
    let client = parts.bus.client();
    let body = serde_json::to_vec(&request).unwrap();
    let answer = eventually(PATIENCE, || async {
        let asked = client.request(subject, body.clone().into()).await;
        asked.map_err(|error| error.to_string())
    })
    .await;
    serde_json::from_slice(&answer.payload).unwrap()
}

/// Waits until the bucket has a rule of this kind.
async fn bucket_has(parts: &Parts, is_right: impl Fn(&AlertRule) -> bool) {
    eventually(PATIENCE, || async {
        let (jetstream, settings) = (parts.bus.jetstream(), parts.bus.settings());
        let bucket = streams::bucket(jetstream, subjects::ALERT_RULES_BUCKET, settings).await;
        let bucket = bucket.map_err(|error| error.to_string())?;
        let value = bucket.get("low").await.map_err(|error| error.to_string())?;
        let found: Option<AlertRule> = value.and_then(|value| serde_json::from_slice(&value).ok());
        match found {
            Some(found) if is_right(&found) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_is_committed_answered_told_and_removed_and_outlives_the_bucket() {
    let servers = Servers::start();
    let parts = servers.parts(BusSettings::default()).await;
    AlertRules::new(Arc::clone(&parts.bus), servers.pool.clone()).start(&parts.lifecycle);
    let definition = json!({"condition": {"kind": "stale", "after_s": 60.0}});
    let put = json!({"rule": "low", "definition": definition});
    let AlertRuleReply::Done(first) = ask(&parts, subjects::PUT_ALERT_RULE, put.clone()).await
    else {
        panic!("it is committed");
    };
    let AlertRuleReply::Done(second) = ask(&parts, subjects::PUT_ALERT_RULE, put).await else {
        panic!("it is committed");
    };
    assert!(second.revision > first.revision);
    bucket_has(&parts, |rule| *rule == *second).await;

    let jetstream = parts.bus.jetstream();
    jetstream
        .delete_key_value(subjects::ALERT_RULES_BUCKET)
        .await
        .unwrap();
    let delete = json!({"rule": "low"});
    let removed = ask(&parts, subjects::DELETE_ALERT_RULE, delete.clone()).await;
    assert!(matches!(&removed, AlertRuleReply::Done(rule) if rule.definition.is_none()));
    bucket_has(&parts, |rule| rule.definition.is_none()).await;
    let again = ask(&parts, subjects::DELETE_ALERT_RULE, delete).await;
    assert_eq!(again, AlertRuleReply::NotFound);
    let wrong = ask(&parts, subjects::PUT_ALERT_RULE, json!({"rule": "a.b"})).await;
    assert!(matches!(wrong, AlertRuleReply::Refused { .. }), "{wrong:?}");
    parts.stop().await;
}
