//! Estimators beside each other: backtests, and which of them is the champion.

use anyhow::{Context, Result};
use reqwest::multipart;
use rovi_common::name::{BatteryName, EstimatorName};
use serde_json::Value;

use super::Hub;

/// A candidate over stored history.
#[derive(Debug, Clone)]
pub struct NewBacktest {
    /// The battery.
    pub battery: BatteryName,
    /// A registered estimator, or the name of the definition.
    pub estimator: Option<EstimatorName>,
    /// The definition, unless a registered estimator is meant.
    pub definition: Option<String>,
    /// Files that a script reads: name and content.
    pub files: Vec<(String, Vec<u8>)>,
    /// Rows with `test_time` below this, in seconds, are not used.
    pub valid_from: f64,
    /// Span of history in seconds for a script's offline estimation; 0 for none.
    pub required_time: f64,
    /// First and last row, as `first..last`; else all.
    pub seq: Option<String>,
}

impl Hub {
    /// Starts a backtest and returns its record.
    ///
    /// # Errors
    /// The hub or the twin is away, or something is refused; the text says what.
    pub async fn start_backtest(&self, new: NewBacktest) -> Result<Value> {
        let mut form = multipart::Form::new()
            .text("valid_from", new.valid_from.to_string())
            .text("required_time", new.required_time.to_string());
        if let Some(estimator) = new.estimator {
            form = form.text("estimator", estimator.to_string());
        }
        if let Some(definition) = new.definition {
            form = form.text("definition", definition);
        }
        for (name, content) in new.files {
            form = form.part("files", multipart::Part::bytes(content).file_name(name));
        }
        let path = self.path(&format!("online/{}/backtest", new.battery))?;
        let query: Vec<_> = new.seq.iter().map(|seq| ("seq", seq)).collect();
        let request = self.http.post(path).query(&query).multipart(form);
        record(self.send(request).await?).await
    }

    /// Returns a backtest's record.
    ///
    /// # Errors
    /// The hub or the twin is away, or there is no such backtest.
    pub async fn backtest(&self, battery: &BatteryName, id: &str) -> Result<Value> {
        let path = self.path(&format!("online/{battery}/backtest/{id}"))?;
        record(self.send(self.http.get(path)).await?).await
    }

    /// Ends a backtest, or forgets one that has ended; returns how it stood.
    ///
    /// # Errors
    /// As of [`Hub::backtest`].
    pub async fn end_backtest(&self, battery: &BatteryName, id: &str) -> Result<Value> {
        let path = self.path(&format!("online/{battery}/backtest/{id}"))?;
        record(self.send(self.http.delete(path)).await?).await
    }

    /// Makes the candidate of a backtest champion; returns how it stands.
    ///
    /// # Errors
    /// As of [`Hub::backtest`], or it cannot be champion as things stand.
    pub async fn promote_candidate(
        &self,
        battery: &BatteryName,
        id: &str,
        name: Option<&EstimatorName>,
    ) -> Result<Value> {
        let path = self.path(&format!("online/{battery}/backtest/{id}/promote"))?;
        let query: Vec<_> = name
            .iter()
            .map(|name| ("estimator", name.as_str()))
            .collect();
        record(self.send(self.http.post(path).query(&query)).await?).await
    }

    /// Promotes, pauses, resumes or resets an estimator; returns how it stands.
    ///
    /// # Errors
    /// The hub or the twin is away, there is no such estimator, or it cannot be as things stand.
    pub async fn control_estimator(
        &self,
        battery: &BatteryName,
        estimator: &EstimatorName,
        action: &str,
    ) -> Result<Value> {
        let path = self.path(&format!("online/{battery}/{estimator}/{action}"))?;
        record(self.send(self.http.post(path)).await?).await
    }

    /// Removes an estimator; returns what was removed, in words.
    ///
    /// # Errors
    /// The hub or the twin is away, or there is no such estimator.
    pub async fn remove_estimator(
        &self,
        battery: &BatteryName,
        estimator: &EstimatorName,
    ) -> Result<String> {
        let path = self.path(&format!("online/{battery}/{estimator}"))?;
        let removed = self.send(self.http.delete(path)).await?.json().await;
        removed.context("the twin's answer is not as expected")
    }
}

async fn record(answer: reqwest::Response) -> Result<Value> {
    let record = answer.json().await;
    record.context("the twin's answer is not as expected")
}
