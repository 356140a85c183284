//! What batteries' metadata say, asked from the hub and kept for a moment.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rovi_common::{filter::Filter, http::Problem};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::hub::{Hub, HubError};

/// How long an answer serves: a dashboard asks again and again, and metadata hardly change.
const KEPT: Duration = Duration::from_secs(2);
/// Answers kept at most.
const MOST_KEPT: usize = 16;

/// Batteries that meet a condition, by name, each with what was found at the paths asked for.
pub(super) type Found = BTreeMap<String, Map<String, Value>>;

/// A condition and a text.
type Question = (String, String);

/// Answers of the hub, and when they came.
#[derive(Debug, Default)]
pub struct MetadataAnswers(Mutex<BTreeMap<Question, (Instant, Arc<Found>)>>);

#[derive(Debug, Deserialize)]
struct Page {
    batteries: Vec<FoundBattery>,
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
struct FoundBattery {
    name: String,
    fields: Map<String, Value>,
}

impl MetadataAnswers {
    /// Asks for the batteries whose metadata meet `filter` and hold `text`.
    pub(super) async fn ask(
        &self,
        hub: &Hub,
        filter: &Filter,
        text: &str,
    ) -> Result<Arc<Found>, Problem> {
        let key = (filter.to_string(), text.to_owned());
        {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.retain(|_, (at, _)| at.elapsed() < KEPT);
            if let Some((_, found)) = kept.get(&key) {
                return Ok(Arc::clone(found));
            }
        }
        let found = Arc::new(read(hub, &key).await?);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < MOST_KEPT {
            kept.insert(key, (Instant::now(), Arc::clone(&found)));
        }
        Ok(found)
    }
}

async fn read(hub: &Hub, (condition, text): &Question) -> Result<Found, Problem> {
    let (mut found, mut after) = (Found::new(), String::new());
    loop {
        let query = [
            ("where", condition.as_str()),
            ("q", text),
            ("limit", "1000"),
            ("after", &after),
        ];
        let page: Page = hub
            .get(&["db", "batteries"], &query)
            .await
            .map_err(problem)?;
        let batteries = page.batteries.into_iter();
        found.extend(batteries.map(|battery| (battery.name, battery.fields)));
        match page.next {
            Some(next) => after = next,
            None => return Ok(found),
        }
    }
}

fn problem(error: HubError) -> Problem {
    match error {
        HubError::Refused { status, detail } if status.is_client_error() => {
            Problem::bad_request(format!("the hub answers {status}: {detail}")).at("where")
        }
        error => Problem::unavailable(format!("the metadata cannot be looked at: {error}")),
    }
}
