//! The hub's HTTP interface, as far as the commands use it; `/online/*` is forwarded to the twin.

mod access;
mod backtest;
mod export;
mod lineage;
mod rejected;
mod status;

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use reqwest::{RequestBuilder, Response, multipart};
use rovi_common::{
    auth::secret::{self, Token},
    name::{BatteryName, EstimatorName},
    rows::Columns,
    tls::{Trust, advice},
};
use serde::Deserialize;
use url::Url;

pub use self::{
    access::{Me, TokenInfo},
    backtest::NewBacktest,
    lineage::{Lineage, StoredEstimate},
    rejected::{Reason, Rejected, RejectedRow, Replayed},
    status::{EstimatorStatus, Estimators, Parameter},
};

/// How long a request may take. Registering a Python estimator fits offline data first.
const TIMEOUT: Duration = Duration::from_mins(2);
/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What `GET /db/stats` says of one battery.
#[derive(Debug, Clone, Deserialize)]
pub struct BatteryStats {
    /// Whether any estimator is registered for it.
    #[serde(default)]
    pub has_estimator: bool,
    /// Its table, where it has rows.
    pub data_stats: Option<TableStats>,
}

/// What `GET /db/stats` says of one table.
#[derive(Debug, Clone, Deserialize)]
pub struct TableStats {
    /// Rows in the table.
    pub rows: u64,
}

/// A registration to make.
#[derive(Debug, Clone)]
pub struct NewEstimator {
    /// The battery.
    pub battery: BatteryName,
    /// The estimator's name within the battery.
    pub estimator: EstimatorName,
    /// Rows with `test_time` below this, in seconds, are not used.
    pub valid_from: f64,
    /// Span of history in seconds for a script's offline estimation; 0 for none.
    pub required_time: f64,
    /// The document or script.
    pub definition: String,
    /// Files that a script reads: name and content.
    pub files: Vec<(String, Vec<u8>)>,
}

/// A client of the hub.
#[derive(Debug, Clone)]
pub struct Hub {
    url: Url,
    http: reqwest::Client,
    token: Option<Token>,
    trust: Trust,
}

impl Hub {
    /// Makes a client of the hub at `url`; nothing is sent yet.
    ///
    /// # Errors
    /// The URL cannot be that of a hub.
    pub fn new(url: Url) -> Result<Self> {
        Self::with_token(url, None, Trust::default())
    }

    /// Makes a client that shows a token to a hub whose certificate, where it has one, counts.
    ///
    /// # Errors
    /// The URL cannot be that of a hub.
    pub fn with_token(url: Url, token: Option<Token>, trust: Trust) -> Result<Self> {
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            bail!("{url} is not the URL of a hub; it looks like http://127.0.0.1:8000");
        }
        let http = trust
            .http()
            .default_headers(secret::headers(token.as_ref().map(Token::expose)))
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .context("cannot prepare for HTTP")?;
        Ok(Self {
            url,
            http,
            token,
            trust,
        })
    }

    /// Returns whose certificates count.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Returns the token that is shown.
    pub fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// Returns the hub's URL.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Registers metadata (battdat's `BatteryMetadata`, with a name) and returns the battery's name.
    ///
    /// # Errors
    /// The hub is away or refuses the metadata.
    pub async fn register_metadata(&self, metadata_json: String) -> Result<BatteryName> {
        let request = self
            .http
            .post(self.path("db/register")?)
            .header("content-type", "application/json")
            .body(metadata_json);
        let name = self.send(request).await?.json().await;
        name.context("the hub's answer is not the name of a battery")
    }

    /// Returns the name in a battery's metadata; `None` where it has none.
    ///
    /// # Errors
    /// The hub is away.
    pub async fn title(&self, battery: &BatteryName) -> Result<Option<String>> {
        #[derive(Deserialize)]
        struct Metadata {
            name: Option<String>,
        }
        let request = self.http.get(self.path(&format!("db/{battery}/metadata"))?);
        let answer = self.answer(request).await?;
        if answer.status() == 404 {
            return Ok(None);
        }
        let metadata = checked(answer).await?.json::<Metadata>().await;
        Ok(metadata
            .context("the hub's metadata are not as expected")?
            .name)
    }

    /// Says what deleting a battery would delete.
    ///
    /// # Errors
    /// The hub is away or knows no such battery.
    pub async fn what_deleting_means(&self, battery: &BatteryName) -> Result<String> {
        let request = self.http.delete(self.path(&format!("db/{battery}"))?);
        let answer = self.answer(request).await?;
        if answer.status() != 409 {
            checked(answer).await?;
            bail!("the hub deleted {battery} without a confirmation; it is of another version");
        }
        let body = answer.bytes().await.unwrap_or_default();
        let detail = serde_json::from_slice::<serde_json::Value>(&body).unwrap_or_default();
        let detail = detail.get("detail").and_then(serde_json::Value::as_str);
        Ok(detail.unwrap_or_default().to_owned())
    }

    /// Deletes a battery; returns where its tables are kept.
    ///
    /// # Errors
    /// The hub is away, knows no such battery, or somebody holds a table.
    pub async fn delete(&self, battery: &BatteryName, drops: bool) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Deleted {
            kept_as: Vec<String>,
        }
        let drops = drops.to_string();
        let query = [("confirm", battery.as_str()), ("drop", &drops)];
        let request = self.http.delete(self.path(&format!("db/{battery}"))?);
        let deleted = self.send(request.query(&query)).await?.json().await;
        let deleted: Deleted = deleted.context("the hub's answer is not as expected")?;
        Ok(deleted.kept_as)
    }

    /// Stores a table beside a battery's rows, in place of one of that name.
    ///
    /// # Errors
    /// The hub is away, knows no such battery, or refuses a row.
    pub async fn store_table(
        &self,
        battery: &BatteryName,
        table: &str,
        columns: &Columns,
    ) -> Result<()> {
        let body = rmp_serde::to_vec(columns).context("the table cannot be written")?;
        let mut url = self.path(&format!("db/{battery}/tables"))?;
        if let Ok(mut path) = url.path_segments_mut() {
            path.push(table);
        }
        let request = self
            .http
            .put(url)
            .header("content-type", "application/msgpack");
        self.send(request.body(body)).await.map(drop)
    }

    /// Tells what a file says of a battery's columns, by name a map of `unit` and `description`;
    /// what somebody said before stays.
    ///
    /// # Errors
    /// The hub is away or refuses them.
    pub async fn offer_meanings(
        &self,
        battery: &BatteryName,
        meanings: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<()> {
        if meanings.is_empty() {
            return Ok(());
        }
        let path = format!("db/{battery}/columns?offered=true");
        let request = self.http.patch(self.path(&path)?).json(meanings);
        self.send(request).await.map(drop)
    }

    /// Returns every battery that the hub knows.
    ///
    /// # Errors
    /// The hub is away.
    pub async fn stats(&self) -> Result<BTreeMap<String, BatteryStats>> {
        let answer = self.send(self.http.get(self.path("db/stats")?)).await?;
        answer
            .json()
            .await
            .context("the hub's /db/stats is not as expected")
    }

    /// Registers an estimator and returns what the twin says of it.
    ///
    /// # Errors
    /// The hub or the twin is away, or the definition is refused; the text says where it is wrong.
    pub async fn register_estimator(&self, new: NewEstimator) -> Result<String> {
        let fields = [
            ("name", new.battery.to_string()),
            ("estimator", new.estimator.to_string()),
            ("valid_from", new.valid_from.to_string()),
            ("required_time", new.required_time.to_string()),
            ("definition", new.definition),
        ];
        let request = self.http.post(self.path("online/register")?);
        let request = if new.files.is_empty() {
            request.form(&fields)
        } else {
            let mut form = multipart::Form::new();
            for (name, text) in fields {
                form = form.text(name, text);
            }
            for (name, content) in new.files {
                form = form.part("files", multipart::Part::bytes(content).file_name(name));
            }
            request.multipart(form)
        };
        let text = self.send(request).await?.text().await?;
        // The answer is a JSON string.
        Ok(serde_json::from_str(&text).unwrap_or(text))
    }

    /// Returns the state of the champion of every battery that has one.
    ///
    /// # Errors
    /// The hub or the twin is away.
    pub async fn default_estimators(&self) -> Result<BTreeMap<String, EstimatorStatus>> {
        let answer = self
            .send(self.http.get(self.path("online/status")?))
            .await?;
        let status = answer.json().await;
        status.context("the twin's /online/status is not as expected")
    }

    /// Returns the state of every estimator of a battery; `None` where it has none.
    ///
    /// # Errors
    /// The hub or the twin is away.
    pub async fn estimators(&self, battery: &str) -> Result<Option<Estimators>> {
        let request = self.http.get(self.path(&format!("online/{battery}"))?);
        let answer = self.answer(request).await?;
        if answer.status() == 404 {
            return Ok(None);
        }
        let text = checked(answer).await?.text().await?;
        let estimators = Estimators::from_json(&text);
        estimators
            .map(Some)
            .context("the twin's status is not as expected")
    }

    /// Returns the newest heartbeat of every service that lives.
    ///
    /// # Errors
    /// The hub or the twin is away.
    pub async fn services(&self) -> Result<Vec<rovi_common::news::Heartbeat>> {
        let answer = self
            .send(self.http.get(self.path("online/services")?))
            .await?;
        let services = answer.json().await;
        services.context("the twin's /online/services is not as expected")
    }

    /// Asks `/ready`, which the twin has, too; tells why the service is not ready.
    ///
    /// # Errors
    /// The service is away or not ready.
    pub async fn ready(&self) -> Result<()> {
        let answer = self.http.get(self.path("ready")?).send().await;
        let answer = answer.map_err(|error| anyhow!("no answer: {}", innermost(&error)))?;
        checked(answer).await.map(drop)
    }

    fn path(&self, path: &str) -> Result<Url> {
        self.url
            .join(path)
            .with_context(|| format!("{path} cannot stand in a URL"))
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Response> {
        request.send().await.map_err(|error| {
            let url = &self.url;
            let reason = innermost(&error);
            if let Some(what_to_do) = advice(&error) {
                anyhow!("the hub at {url} cannot be talked to: {what_to_do}")
            } else if error.is_connect() || error.is_timeout() {
                anyhow!("the hub at {url} does not answer: {reason}; start it with `rovicli up`")
            } else if url.scheme() == "http" {
                anyhow!(
                    "asking the hub at {url} failed: {reason}; where it speaks TLS, its URL begins \
                     with https://"
                )
            } else {
                anyhow!("asking the hub at {url} failed: {reason}")
            }
        })
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response> {
        checked(self.answer(request).await?).await
    }
}

/// Turns an answer that is no success into an error with the service's words.
async fn checked(answer: Response) -> Result<Response> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let url = answer.url().clone();
    let body = answer.bytes().await.unwrap_or_default();
    bail!(
        "{} ({} {})",
        problem_text(status.as_u16(), &body),
        status.as_u16(),
        url.path()
    )
}

/// Finds the words for people in an answer that is no success: a problem document or any text.
pub(crate) fn problem_text(status: u16, body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Problem {
        detail: serde_json::Value,
        field: Option<String>,
    }
    /// What `/ready` answers while it is not.
    #[derive(Deserialize)]
    struct Waiting {
        problems: BTreeMap<String, String>,
    }
    if let Ok(Problem { detail, field }) = serde_json::from_slice(body) {
        let detail = match detail {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        return match field {
            // Within a definition, the detail begins with the path already.
            Some(field) if !detail.contains(field.trim_start_matches("definition.")) => {
                format!("{field}: {detail}")
            }
            _ => detail,
        };
    }
    if let Ok(Waiting { problems }) = serde_json::from_slice(body) {
        let problems = problems.into_iter();
        let lines: Vec<String> = problems
            .map(|(what, why)| format!("{what}: {why}"))
            .collect();
        return lines.join("; ");
    }
    match String::from_utf8_lossy(body).trim() {
        "" => format!("the answer has status {status} and no reason"),
        text => text.chars().take(500).collect(),
    }
}

fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// Reads a file to be sent beside a registration.
///
/// # Errors
/// The file cannot be read.
pub fn read_attachment(path: &Path) -> Result<(String, Vec<u8>)> {
    let content = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let name = path.file_name().unwrap_or(path.as_os_str());
    Ok((name.to_string_lossy().into_owned(), content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_document_is_told_in_its_own_words() {
        let body =
            br#"{"title": "Bad Request", "status": 400, "detail": "it is 0", "field": "every"}"#;
        assert_eq!(problem_text(400, body), "every: it is 0");
        let body = br#"{"detail": "asoh.foo: unknown key", "field": "definition.asoh.foo"}"#;
        assert_eq!(problem_text(400, body), "asoh.foo: unknown key");
        assert_eq!(
            problem_text(404, br#"{"detail": "No such dataset: x"}"#),
            "No such dataset: x"
        );
        let waiting = br#"{"status": "waiting", "problems": {"nats": "away", "rows": "none"}}"#;
        assert_eq!(problem_text(503, waiting), "nats: away; rows: none");
        assert_eq!(problem_text(502, b"bad gateway\n"), "bad gateway");
        assert!(problem_text(500, b"").contains("500"));
    }

    #[test]
    fn a_url_that_is_no_hub_is_refused_at_once() {
        for url in ["ftp://127.0.0.1:8000", "file:///tmp"] {
            assert!(Hub::new(url.parse().unwrap()).is_err(), "{url}");
        }
    }
}
