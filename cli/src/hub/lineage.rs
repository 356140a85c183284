//! What made an estimate, and the rows it was made of.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use rovi_common::{
    frame::RowFrame,
    name::{BatteryName, EstimatorName},
    registration::Registration,
};
use serde::Deserialize;

use super::{Hub, checked};

/// Rows of one page.
const PAGE_ROWS: i64 = 8192;

/// What made an estimate.
#[derive(Debug, Clone, Deserialize)]
pub struct Lineage {
    /// The life of the battery's name.
    pub epoch: i64,
    /// The registration.
    pub revision: i64,
    /// Raised whenever rows were estimated anew.
    pub generation: i64,
    /// Version of the twin.
    pub code_version: String,
    /// SHA-256 of the document or script.
    pub definition: String,
    /// How far rows could be late, in seconds.
    pub horizon: f64,
    /// The first row it was made of.
    pub rows_from: i64,
}

/// An estimate as the table has it.
#[derive(Debug, Clone, Default)]
pub struct StoredEstimate {
    /// Values by column; NaN and null are alike.
    pub values: BTreeMap<String, Option<f64>>,
}

impl Hub {
    /// Returns what made the estimate after a row, and whose it is: where nobody is named, that of
    /// the row's champion.
    ///
    /// # Errors
    /// The hub is away or has no such estimate.
    pub async fn lineage(
        &self,
        battery: &BatteryName,
        estimator: Option<&EstimatorName>,
        seq: i64,
    ) -> Result<(EstimatorName, Lineage)> {
        #[derive(Deserialize)]
        struct Body {
            estimator: EstimatorName,
            lineage: Vec<Lineage>,
        }
        let request = self
            .http
            .get(self.path(&format!("db/{battery}/estimates/lineage"))?);
        let named = estimator.map(|name| [("estimator", name.as_str())]);
        let request = request.query(&[("seq", seq)]).query(&named);
        let body: Body = self.send(request).await?.json().await?;
        let lineage =
            body.lineage.into_iter().next().with_context(|| {
                format!("nothing is known of what made the estimate of row {seq}")
            })?;
        Ok((body.estimator, lineage))
    }

    /// Returns the registration of a revision.
    ///
    /// # Errors
    /// The hub is away or never had it.
    pub async fn registration(
        &self,
        (battery, estimator): (&BatteryName, &EstimatorName),
        revision: i64,
    ) -> Result<Registration> {
        let path = format!("db/{battery}/estimators/{estimator}/revisions/{revision}");
        let request = self.http.get(self.path(&path)?);
        let mut body: serde_json::Value = self.send(request).await?.json().await?;
        if let Some(fields) = body.as_object_mut() {
            fields.insert("battery".to_owned(), battery.as_str().into());
            fields.insert("estimator".to_owned(), estimator.as_str().into());
        }
        serde_json::from_value(body).context("the hub's registration is not as expected")
    }

    /// Reads a file that a registration had.
    ///
    /// # Errors
    /// The hub is away or does not have it.
    pub async fn registered_file(
        &self,
        (battery, estimator): (&BatteryName, &EstimatorName),
        digest: &str,
    ) -> Result<Vec<u8>> {
        let path = format!("db/{battery}/estimators/{estimator}/files/{digest}");
        let answer = self.send(self.http.get(self.path(&path)?)).await?;
        Ok(answer.bytes().await?.to_vec())
    }

    /// Returns a battery's metadata; `None` where it has none.
    ///
    /// # Errors
    /// The hub is away.
    pub async fn metadata(&self, battery: &BatteryName) -> Result<Option<serde_json::Value>> {
        let request = self.http.get(self.path(&format!("db/{battery}/metadata"))?);
        let answer = self.answer(request).await?;
        if answer.status() == 404 {
            return Ok(None);
        }
        Ok(Some(checked(answer).await?.json().await?))
    }

    /// Returns the estimate after a row.
    ///
    /// # Errors
    /// The hub is away or has none.
    pub async fn estimate(
        &self,
        (battery, estimator): (&BatteryName, &EstimatorName),
        seq: i64,
    ) -> Result<StoredEstimate> {
        #[derive(Deserialize)]
        struct Body {
            seq: Vec<i64>,
            columns: BTreeMap<String, Vec<Option<f64>>>,
        }
        let request = self
            .http
            .get(self.path(&format!("db/{battery}/estimates"))?);
        let query = [
            ("estimator", estimator.to_string()),
            ("seq", format!("{seq}..{seq}")),
            ("format", "json".to_owned()),
        ];
        let body: Body = self.send(request.query(&query)).await?.json().await?;
        if body.seq.is_empty() {
            bail!("{estimator} of {battery} has no estimate of row {seq}");
        }
        let first =
            |(name, cells): (String, Vec<Option<f64>>)| (name, cells.first().copied().flatten());
        Ok(StoredEstimate {
            values: body.columns.into_iter().map(first).collect(),
        })
    }

    /// Reads a page of rows of an epoch from `from` on; returns them, the first row that is not gone
    /// and the newest.
    ///
    /// # Errors
    /// The hub is away, or the battery began another epoch.
    pub async fn rows(
        &self,
        battery: &BatteryName,
        epoch: i64,
        from: i64,
    ) -> Result<(Vec<RowFrame>, i64, i64)> {
        let request = self.http.get(self.path(&format!("db/{battery}/rows"))?);
        let query = [
            ("seq", format!("{from}..{}", from + PAGE_ROWS - 1)),
            ("epoch", epoch.to_string()),
            ("limit", PAGE_ROWS.to_string()),
            ("format", "msgpack".to_owned()),
        ];
        let answer = self.send(request.query(&query)).await?;
        let number = |name: &str| -> Result<i64> {
            let value = answer
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok());
            let value = value.with_context(|| format!("the hub's answer has no {name}"))?;
            value
                .parse()
                .with_context(|| format!("{name} is no number"))
        };
        let (first, last) = (number("Rovi-First-Seq")?, number("Rovi-Last-Seq")?);
        let frames = twin::hub::decode_frames(&answer.bytes().await?);
        Ok((
            frames.context("the hub's rows cannot be read")?,
            first,
            last,
        ))
    }
}
