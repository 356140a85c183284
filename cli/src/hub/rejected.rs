//! Rows that no table took: what the hub says of them, and sending them again.

use anyhow::{Context, Result};
use rovi_common::name::BatteryName;
use serde::Deserialize;

use super::Hub;

/// Rows that no table took.
#[derive(Debug, Clone, Deserialize)]
pub struct Rejected {
    /// How many there are in all.
    pub count: u64,
    /// The commonest reasons.
    pub reasons: Vec<Reason>,
    /// Some of the rows, by id.
    pub rejected: Vec<RejectedRow>,
    /// Whether there are more.
    pub more: bool,
}

/// How many rows a reason cost.
#[derive(Debug, Clone, Deserialize)]
pub struct Reason {
    /// Why.
    pub reason: String,
    /// How many.
    pub rows: u64,
}

/// A row that no table took.
#[derive(Debug, Clone, Deserialize)]
pub struct RejectedRow {
    /// Names the row.
    pub id: i64,
    /// Its place in its upload.
    pub position: Option<i64>,
    /// Why.
    pub reason: String,
    /// As it was sent.
    pub row: serde_json::Value,
}

/// What became of rejected rows that were sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Replayed {
    /// Rows sent again.
    pub replayed: u64,
    /// Rows that are in the table now.
    pub stored: u64,
    /// Rows that stay, with the reason of now.
    pub rejected: u64,
}

impl Hub {
    /// Lists rows of a battery that no table took, those with ids above `after`, and counts them.
    ///
    /// # Errors
    /// The hub is away or knows no such battery.
    pub async fn rejected(&self, battery: &BatteryName, after: Option<i64>) -> Result<Rejected> {
        let mut url = self.path(&format!("db/{battery}/rejected"))?;
        if let Some(after) = after {
            url.query_pairs_mut()
                .append_pair("after", &after.to_string());
        }
        let answer = self.send(self.http.get(url)).await?.json().await;
        answer.context("the hub's list of rejected rows is not as expected")
    }

    /// Sends rejected rows again, all or those with these ids (`3,7..9`).
    ///
    /// # Errors
    /// The hub is away, knows no such battery, or the ids are wrong.
    pub async fn replay_rejected(
        &self,
        battery: &BatteryName,
        ids: Option<&str>,
    ) -> Result<Replayed> {
        let mut url = self.path(&format!("db/{battery}/rejected/replay"))?;
        if let Some(ids) = ids {
            url.query_pairs_mut().append_pair("id", ids);
        }
        let answer = self.send(self.http.post(url)).await?.json().await;
        answer.context("the hub's answer is not as expected")
    }
}
