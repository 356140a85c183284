//! Exports of history: whole ranges as files.

use std::time::Duration;

use anyhow::Result;
use reqwest::Response;
use rovi_common::name::BatteryName;

use super::{Hub, checked};

/// How long an export may take; a hub that falls silent is noticed by whoever reads.
const WHOLE_EXPORT: Duration = Duration::from_hours(24);

impl Hub {
    /// Asks for a file of a battery's `rows` or `estimates` over the ranges in `query`; the body
    /// comes while the hub reads.
    ///
    /// # Errors
    /// The hub is away or refuses the question.
    pub async fn export(
        &self,
        battery: &BatteryName,
        of: &'static str,
        query: &[(&'static str, String)],
    ) -> Result<Response> {
        let path = self.path(&format!("db/{battery}/{of}/export"))?;
        let request = self.http.get(path).query(query).timeout(WHOLE_EXPORT);
        checked(self.answer(request).await?).await
    }
}
