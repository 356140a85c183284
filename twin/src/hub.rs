//! What the twin asks the Data Hub: rows that the bus no longer holds, and changes of
//! registrations.

use std::time::Duration;

use async_nats::Request;
use reqwest::{Response, StatusCode};
use rovi_common::{
    alerts::{AlertRuleReply, DeleteAlertRule, PutAlertRule},
    frame::{FrameError, RowFrame},
    name::BatteryName,
    registration::{Control, Deregister, Register, Reply},
    subjects,
    tls::{Trust, advice},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use url::Url;

/// Rows asked for at once.
const PAGE_ROWS: u32 = 8192;
/// The most bytes of one answer; a page that is larger is asked for in smaller parts.
const MAX_PAGE_BYTES: usize = 32 << 20;
const EPOCH_HEADER: &str = "Rovi-Epoch";
const FIRST_SEQ_HEADER: &str = "Rovi-First-Seq";
const LAST_SEQ_HEADER: &str = "Rovi-Last-Seq";
const DELETED_HEADER: &str = "Rovi-Deleted";

/// Why the hub gave no answer that can be used.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// It is away or overloaded; asking again may help.
    #[error("the hub is away: {0}")]
    Away(String),
    /// It has no such battery.
    #[error("the hub has no rows of this battery")]
    NotFound,
    /// The rows belong to a life of the battery's name that is over.
    #[error("the battery's name began a new life")]
    OtherEpoch,
    /// It refused the request.
    #[error("the hub answers {status}: {detail}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// The answer's text.
        detail: String,
    },
    /// The answer does not hold rows.
    #[error("the hub's answer cannot be read: {0}")]
    Damaged(String),
}

/// Consecutive rows as the hub has them; the first may lie behind the one asked for where older
/// ones were deleted.
#[derive(Debug)]
pub struct Page {
    /// The rows, empty where there are none in the range.
    pub frames: Vec<RowFrame>,
    /// The battery's present epoch.
    pub epoch: i64,
    /// Rows below this are gone.
    pub first_seq: i64,
    /// Its newest stored row.
    pub last_seq: i64,
    /// First and last row of known gaps, in order: rows that were deleted by hand.
    pub deleted: Vec<(i64, i64)>,
}

impl Page {
    /// Returns the first row from `seq` on that was not deleted by hand.
    pub fn after_deleted(&self, seq: i64) -> i64 {
        let gaps = self.deleted.iter();
        gaps.fold(seq, |seq, &(first, last)| {
            if first <= seq && seq <= last {
                last + 1
            } else {
                seq
            }
        })
    }

    /// Returns the row behind the last that this page tells of, or the first that it lacks though
    /// nobody deleted it.
    ///
    /// # Errors
    /// The missing row.
    pub fn end_after(&self, from: i64) -> Result<i64, i64> {
        let mut next = self.after_deleted(from.max(self.first_seq));
        for frame in &self.frames {
            if frame.first_seq > next {
                return Err(next);
            }
            next = self.after_deleted(frame.last_seq() + 1);
        }
        Ok(next)
    }
}

/// The Data Hub.
#[derive(Debug, Clone)]
pub struct Hub {
    nats: async_nats::Client,
    http: reqwest::Client,
    url: Url,
    timeout: Duration,
}

impl Hub {
    /// Returns the hub at `url`, which need not answer yet and is shown the token, if there is one.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn new(
        nats: async_nats::Client,
        (url, token): (Url, Option<&str>),
        (timeout, trust): (Duration, &Trust),
    ) -> Result<Self, reqwest::Error> {
        let http = trust
            .http()
            .default_headers(rovi_common::auth::secret::headers(token))
            .redirect(reqwest::redirect::Policy::none())
            .timeout(timeout)
            .connect_timeout(timeout.min(Duration::from_secs(2)))
            .build()?;
        Ok(Self {
            nats,
            http,
            url,
            timeout,
        })
    }

    /// Tells why the hub cannot be used now, or nothing.
    pub async fn problem(&self) -> Option<String> {
        let asked = self.http.get(self.address(&["health"])).send().await;
        match asked.and_then(Response::error_for_status) {
            Ok(_) => None,
            Err(error) => Some(format!("the hub does not answer: {}", reason(&error))),
        }
    }

    /// Reads the rows of `epoch` from `from` up to `to` or the newest, or the first page of them.
    ///
    /// Without `epoch` the present one is meant.
    ///
    /// # Errors
    /// See [`HubError`].
    pub async fn rows(
        &self,
        battery: &BatteryName,
        epoch: Option<i64>,
        (from, to): (i64, Option<i64>),
    ) -> Result<Page, HubError> {
        self.rows_of(battery, epoch, (from, to), (PAGE_ROWS, &[]))
            .await
    }

    /// As [`Hub::rows`], at most so many and only with these columns; none named means all.
    ///
    /// # Errors
    /// See [`HubError`].
    pub(crate) async fn rows_of(
        &self,
        battery: &BatteryName,
        epoch: Option<i64>,
        (from, to): (i64, Option<i64>),
        (mut limit, columns): (u32, &[&str]),
    ) -> Result<Page, HubError> {
        loop {
            let to = to.map(|to| to.to_string()).unwrap_or_default();
            let mut query = vec![
                ("seq", format!("{from}..{to}")),
                ("limit", limit.to_string()),
                ("format", "msgpack".to_owned()),
            ];
            query.extend(columns.iter().map(|name| ("column", (*name).to_owned())));
            query.extend(epoch.map(|epoch| ("epoch", epoch.to_string())));
            let address = self.address(&["db", battery.as_str(), "rows"]);
            let sent = self.http.get(address).query(&query).send().await;
            let answer = accepted(sent.map_err(|error| HubError::Away(reason(&error)))?).await?;
            let epoch = number(&answer, EPOCH_HEADER)?;
            let first_seq = number(&answer, FIRST_SEQ_HEADER)?;
            let last_seq = number(&answer, LAST_SEQ_HEADER)?;
            let deleted = gaps(&answer)?;
            match body(answer).await? {
                Some(body) => {
                    let frames =
                        decode_frames(&body).map_err(|error| HubError::Damaged(chain(&error)))?;
                    return Ok(Page {
                        frames,
                        epoch,
                        first_seq,
                        last_seq,
                        deleted,
                    });
                }
                None if limit > 1 => limit /= 2,
                None => return Err(HubError::Damaged("one row is too large".to_owned())),
            }
        }
    }

    /// Reads a battery's metadata; `None` where it has none.
    ///
    /// # Errors
    /// See [`HubError`].
    pub async fn metadata(
        &self,
        battery: &BatteryName,
    ) -> Result<Option<serde_json::Value>, HubError> {
        let address = self.address(&["db", battery.as_str(), "metadata"]);
        let sent = self.http.get(address).send().await;
        let sent = sent.map_err(|error| HubError::Away(reason(&error)))?;
        let answer = match accepted(sent).await {
            Ok(answer) => answer,
            Err(HubError::NotFound) => return Ok(None),
            Err(error) => return Err(error),
        };
        let body = body(answer).await?.unwrap_or_default();
        serde_json::from_slice(&body)
            .map(Some)
            .map_err(|error| HubError::Damaged(error.to_string()))
    }

    /// Reads a JSON document.
    ///
    /// # Errors
    /// See [`HubError`].
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T, HubError> {
        let sent = self.http.get(self.address(path)).query(query).send().await;
        let answer = accepted(sent.map_err(|error| HubError::Away(reason(&error)))?).await?;
        let body = body(answer).await?.unwrap_or_default();
        serde_json::from_slice(&body).map_err(|error| HubError::Damaged(error.to_string()))
    }

    /// Asks the hub to commit a registration.
    ///
    /// # Errors
    /// [`HubError::Away`] and [`HubError::Damaged`].
    pub async fn register(&self, request: &Register) -> Result<Reply, HubError> {
        self.request(subjects::REGISTER, request).await
    }

    /// Asks the hub to commit the removal of a registration.
    ///
    /// # Errors
    /// [`HubError::Away`] and [`HubError::Damaged`].
    pub async fn deregister(&self, request: &Deregister) -> Result<Reply, HubError> {
        self.request(subjects::DEREGISTER, request).await
    }

    /// Asks the hub to commit that an estimator is promoted, paused, resumed or reset.
    ///
    /// # Errors
    /// [`HubError::Away`] and [`HubError::Damaged`].
    pub async fn control(&self, request: &Control) -> Result<Reply, HubError> {
        self.request(subjects::CONTROL, request).await
    }

    /// Asks the hub to commit a rule of alerts.
    ///
    /// # Errors
    /// [`HubError::Away`] and [`HubError::Damaged`].
    pub async fn put_alert_rule(&self, request: &PutAlertRule) -> Result<AlertRuleReply, HubError> {
        self.request(subjects::PUT_ALERT_RULE, request).await
    }

    /// Asks the hub to commit the removal of a rule of alerts.
    ///
    /// # Errors
    /// [`HubError::Away`] and [`HubError::Damaged`].
    pub async fn delete_alert_rule(
        &self,
        request: &DeleteAlertRule,
    ) -> Result<AlertRuleReply, HubError> {
        self.request(subjects::DELETE_ALERT_RULE, request).await
    }

    async fn request<T: DeserializeOwned>(
        &self,
        subject: &'static str,
        body: &impl Serialize,
    ) -> Result<T, HubError> {
        if let Some(problem) = rovi_common::streams::problem(&self.nats) {
            return Err(HubError::Away(problem));
        }
        let body =
            serde_json::to_vec(body).map_err(|error| HubError::Damaged(error.to_string()))?;
        let request = Request::new()
            .payload(body.into())
            .timeout(Some(self.timeout));
        let answer = self.nats.send_request(subject, request).await;
        let answer = answer.map_err(|error| HubError::Away(error.to_string()))?;
        serde_json::from_slice(&answer.payload)
            .map_err(|error| HubError::Damaged(error.to_string()))
    }

    fn address(&self, segments: &[&str]) -> Url {
        let mut address = self.url.clone();
        if let Ok(mut path) = address.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        address
    }
}

/// Tells an answer with rows from the others.
async fn accepted(answer: Response) -> Result<Response, HubError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    match status {
        StatusCode::NOT_FOUND => Err(HubError::NotFound),
        StatusCode::CONFLICT => Err(HubError::OtherEpoch),
        _ => {
            let text = body(answer).await?.unwrap_or_default();
            let mut detail = String::from_utf8_lossy(&text).into_owned();
            detail.truncate(detail.floor_char_boundary(500));
            if status == StatusCode::SERVICE_UNAVAILABLE {
                return Err(HubError::Away(detail));
            }
            Err(HubError::Refused { status, detail })
        }
    }
}

/// Reads an answer, or nothing where it is too large.
async fn body(mut answer: Response) -> Result<Option<Vec<u8>>, HubError> {
    let mut body = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > MAX_PAGE_BYTES => return Ok(None),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(Some(body)),
            Err(error) => return Err(HubError::Away(reason(&error))),
        }
    }
}

fn number(answer: &Response, header: &str) -> Result<i64, HubError> {
    let value = answer
        .headers()
        .get(header)
        .and_then(|value| value.to_str().ok());
    let number = value.and_then(|text| text.parse().ok());
    number.ok_or_else(|| HubError::Damaged(format!("it has no usable header {header}")))
}

/// Reads the header `5-7,9-9`.
fn gaps(answer: &Response) -> Result<Vec<(i64, i64)>, HubError> {
    let Some(value) = answer.headers().get(DELETED_HEADER) else {
        return Ok(Vec::new());
    };
    let gap = |text: &str| {
        let (first, last) = text.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()?))
    };
    let gaps = value.to_str().ok();
    let gaps = gaps.and_then(|text| text.split(',').map(gap).collect());
    gaps.ok_or_else(|| HubError::Damaged(format!("its header {DELETED_HEADER} is damaged")))
}

/// Reads row frames that stand one after another.
///
/// # Errors
/// See [`FrameError`].
pub fn decode_frames(bytes: &[u8]) -> Result<Vec<RowFrame>, FrameError> {
    let mut reader = rmp_serde::Deserializer::new(bytes);
    let mut frames = Vec::new();
    while !reader.get_ref().is_empty() {
        let frame = RowFrame::deserialize(&mut reader).map_err(FrameError::Decode)?;
        let (expected, found) = (frame.received.len(), frame.columns.rows());
        if frame.columns.width() > 0 && expected != found {
            return Err(FrameError::Length { expected, found });
        }
        frames.push(frame);
    }
    Ok(frames)
}

/// Says why there is no answer, and what to do where TLS did not let it come.
fn reason(error: &reqwest::Error) -> String {
    advice(error).unwrap_or_else(|| chain(error))
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    rovi_common::error::ErrorChain(error).to_string()
}
