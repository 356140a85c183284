//! Bodies that stop coming: no request waits for the rest of one for long.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    HttpMessage,
    body::MessageBody,
    dev::{Payload, ServiceRequest, ServiceResponse},
    error::PayloadError,
    http::header,
    middleware::Next,
};
use bytes::Bytes;
use futures_util::Stream;
use tokio::time::{Instant, Sleep, sleep};

/// Silence after which a body is given up.
pub const SILENCE: Duration = Duration::from_secs(30);

/// Middleware: gives bodies up that are silent for [`SILENCE`]; sockets have patience of their own.
///
/// # Errors
/// What the handler says, which hears that the body broke off.
pub async fn bounded(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let headers = request.headers();
    let has_body = headers.contains_key(header::CONTENT_LENGTH)
        || headers.contains_key(header::TRANSFER_ENCODING);
    if has_body && !headers.contains_key(header::UPGRADE) {
        let body = Patient {
            body: request.take_payload(),
            silence: Box::pin(sleep(SILENCE)),
        };
        let body: Pin<Box<dyn Stream<Item = _>>> = Box::pin(body);
        request.set_payload(Payload::from(body));
    }
    next.call(request).await
}

struct Patient {
    body: Payload,
    silence: Pin<Box<Sleep>>,
}

impl Stream for Patient {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Poll::Ready(next) = Pin::new(&mut self.body).poll_next(context) {
            let deadline = Instant::now() + SILENCE;
            self.silence.as_mut().reset(deadline);
            return Poll::Ready(next);
        }
        if self.silence.as_mut().poll(context).is_ready() {
            let problem = format!("nothing came for {} s", SILENCE.as_secs());
            let problem = io::Error::new(io::ErrorKind::TimedOut, problem);
            return Poll::Ready(Some(Err(PayloadError::Io(problem))));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_may_be_slow_but_not_silent() {
        let piece = || async {
            sleep(SILENCE / 2).await;
            Ok(Bytes::from_static(b"x"))
        };
        let slow = stream::repeat_with(piece).take(5).then(|piece| piece);
        let slow: Pin<Box<dyn Stream<Item = _>>> = Box::pin(slow.chain(stream::pending()));
        let body = Patient {
            body: Payload::from(slow),
            silence: Box::pin(sleep(SILENCE)),
        };
        let came: Vec<_> = body.take(6).collect().await;
        assert!(came[..5].iter().all(Result::is_ok));
        let problem = came[5].as_ref().unwrap_err().to_string();
        assert!(problem.contains("nothing came"), "{problem}");
    }
}
