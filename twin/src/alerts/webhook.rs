//! Posts the begin and end of alerts to where their rules say.
//!
//! All twins share one durable consumer of the events: what is not taken comes again, later each
//! time, also after a restart. Nothing waits in memory but what is being sent, and of an answer nothing
//! but its status is read.

use std::{fmt::Write, sync::Arc, time::Duration};

use async_nats::jetstream::{
    AckKind, Message,
    consumer::{AckPolicy, DeliverPolicy, pull},
};
use futures_util::StreamExt;
use reqwest::{Client, ClientBuilder, redirect};
use ring::hmac;
use rovi_common::{
    clock,
    error::ErrorChain,
    news::{AlertChange, Event, Happening},
    streams,
};
use url::Url;

use super::reach::{Reach, Resolver};
use crate::fleet::{Fleet, Shared};

const CONSUMER: &str = "webhooks";
const AT_ONCE: usize = 16;
/// Events sent and not yet taken; the others wait in the stream.
const MAX_ACK_PENDING: i64 = 256;
const ACK_WAIT: Duration = Duration::from_mins(1);
/// How long a receiver may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// After so many tries, more than an hour, an event is given up.
const MAX_TRIES: i64 = 14;
const MAX_DELAY: Duration = Duration::from_mins(10);
const OPEN_AGAIN: Duration = Duration::from_secs(1);

/// What may be posted to, and by what receivers know us.
#[derive(Debug)]
pub struct Hooks {
    client: Client,
    key: Option<hmac::Key>,
    reach: Arc<Reach>,
}

/// What became of one try.
enum Sent {
    Taken,
    /// Nothing is to be sent, or it never can be.
    Dropped(Option<String>),
    Failed(String),
}

impl Hooks {
    /// Makes the client; without a secret no rule may have a webhook.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn new(
        client: ClientBuilder,
        secret: Option<&[u8]>,
        reach: Reach,
    ) -> Result<Self, reqwest::Error> {
        let reach = Arc::new(reach);
        let client = client
            .timeout(TIMEOUT)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .dns_resolver(Arc::new(Resolver(Arc::clone(&reach))))
            .build()?;
        Ok(Self {
            client,
            key: secret.map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret)),
            reach,
        })
    }

    /// Tells why a URL may not be posted to, or nothing.
    pub fn problem(&self, url: &Url) -> Option<String> {
        if self.key.is_none() {
            return Some(
                "webhooks are signed, and alerts.webhook_secret_file is not set".to_owned(),
            );
        }
        self.reach.problem(url)
    }

    async fn post(&self, url: &Url, event: &Event) -> Sent {
        let Some(key) = &self.key else {
            return Sent::Dropped(self.problem(url));
        };
        if let Some(problem) = self.problem(url) {
            return Sent::Dropped(Some(problem));
        }
        let (body, at) = (event.encode(), clock::now_us() / 1_000_000);
        let request = self
            .client
            .post(url.clone())
            .header("content-type", "application/json")
            .header("rovi-event-id", &event.id)
            .header("rovi-signature", signature(key, at, &body));
        match request.body(body).send().await {
            Ok(answer) if answer.status().is_success() => Sent::Taken,
            Ok(answer) => Sent::Failed(format!("it answers {}", answer.status())),
            // Paths of webhooks are often secrets: the URL is not for the log.
            Err(error) => Sent::Failed(ErrorChain(&error.without_url()).to_string()),
        }
    }
}

/// Signs `<at>.<body>`: `t=<seconds since 1970>,v1=<hex of HMAC-SHA256>`.
fn signature(key: &hmac::Key, at: i64, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(key);
    context.update(format!("{at}.").as_bytes());
    context.update(body);
    let tag = context.sign();
    let mut signature = format!("t={at},v1=");
    for byte in tag.as_ref() {
        let _always_works = write!(signature, "{byte:02x}");
    }
    signature
}

/// Delivers until the service stops.
pub(crate) async fn deliver(fleet: Arc<Fleet>) {
    let shared = fleet.shared();
    while !shared.stop.is_cancelled() {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            ended = deliver_once(shared) => if let Err(error) = ended {
                tracing::debug!("webhooks wait: {error}");
            },
        }
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = tokio::time::sleep(OPEN_AGAIN) => {}
        }
    }
}

async fn deliver_once(shared: &Shared) -> Result<(), async_nats::Error> {
    let stream = streams::ensure_events(&shared.jetstream, &shared.settings.bus).await?;
    let config = pull::Config {
        durable_name: Some(CONSUMER.to_owned()),
        deliver_policy: DeliverPolicy::New,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        max_ack_pending: MAX_ACK_PENDING,
        ..pull::Config::default()
    };
    let consumer = stream.get_or_create_consumer(CONSUMER, config).await?;
    let messages = consumer.stream().max_messages_per_batch(AT_ONCE);
    let messages = messages.messages().await?;
    messages
        .for_each_concurrent(AT_ONCE, |message| async {
            if let Ok(message) = message {
                take(shared, &message).await;
            }
        })
        .await;
    Ok(())
}

async fn take(shared: &Shared, message: &Message) {
    let event = Event::decode(&message.payload).ok();
    let target = event.as_ref().and_then(|event| target(shared, event));
    let sent = match (&event, target) {
        (Some(event), Some(url)) => shared.hooks.post(&url, event).await,
        _ => Sent::Dropped(None),
    };
    let tries = message.info().map_or(1, |info| info.delivered);
    let id = event.map_or_else(String::new, |event| event.id);
    let answer = answer(shared, &id, sent, tries);
    if let Err(error) = message.ack_with(answer).await {
        tracing::debug!("{id} may be posted again: {error}");
    }
}

/// Decides whether an event comes again, and says what became of it.
fn answer(shared: &Shared, id: &str, sent: Sent, tries: i64) -> AckKind {
    let count = |outcome| {
        shared
            .metrics
            .live
            .webhooks
            .with_label_values(&[outcome])
            .inc();
    };
    let problem = match sent {
        Sent::Dropped(None) => return AckKind::Ack,
        Sent::Taken => {
            count("taken");
            return AckKind::Ack;
        }
        Sent::Failed(problem) if tries < MAX_TRIES => {
            count("failed");
            tracing::warn!("{id} is posted again later: {problem}");
            return AckKind::Nak(Some(delay(tries)));
        }
        Sent::Failed(problem) | Sent::Dropped(Some(problem)) => problem,
    };
    count("given_up");
    tracing::error!("{id} is given up at try {tries}: {problem}");
    AckKind::Term
}

/// How long to wait after so many tries: a second, and twice as long each time.
fn delay(tries: i64) -> Duration {
    let doublings = u32::try_from(tries.clamp(1, 10)).unwrap_or(1) - 1;
    let delay = Duration::from_secs(1).saturating_mul(1 << doublings);
    delay.min(MAX_DELAY)
}

/// Returns where an event is to be posted to.
fn target(shared: &Shared, event: &Event) -> Option<Url> {
    let (Happening::AlertRaised(AlertChange { rule, .. })
    | Happening::AlertCleared(AlertChange { rule, .. })) = &event.happening
    else {
        return None;
    };
    let rule = shared.alerts.rule(&rule.parse().ok()?)?;
    rule.definition.as_ref()?.webhook.clone()
}

#[cfg(test)]
mod tests {
    use rovi_common::tls::Trust;

    use super::*;

    #[test]
    fn without_a_secret_nothing_is_posted() {
        let hooks = Hooks::new(Trust::default().http(), None, Reach::default()).unwrap();
        let url = "http://receiver.example/".parse().unwrap();
        let problem = hooks.problem(&url).unwrap();
        assert!(problem.contains("webhook_secret_file"), "{problem}");
    }

    #[test]
    fn a_signature_is_that_of_time_and_body() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        let signed = signature(&key, 12, b"{}");
        let (_, hex) = signed.split_once("t=12,v1=").unwrap();
        let digits = hex.as_bytes().chunks(2);
        let tag: Vec<u8> = digits
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        assert!(hmac::verify(&key, b"12.{}", &tag).is_ok());
    }
}
