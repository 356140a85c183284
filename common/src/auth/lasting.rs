//! Bodies last no longer than the right to them: what is on its way in or out when a right ends breaks
//! off there, an export as well as a body that comes slowly.

use std::{
    error::Error,
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::{
    HttpMessage,
    body::{BodySize, BoxBody, MessageBody},
    dev::{Payload, ServiceRequest, ServiceResponse},
    error::PayloadError,
    http::{Method, StatusCode, header},
};
use bytes::Bytes;
use futures_util::{FutureExt, Stream, future::LocalBoxFuture};

use super::{
    access::{Access, Ended},
    role::Role,
};
use crate::name::BatteryName;

/// What a body needs until its end: that the caller is let in, and a role for a battery, if for one.
pub(super) type Needed = Option<(Role, BatteryName)>;

/// Has the request's body break off when the right to it ends.
pub(super) fn incoming(request: &mut ServiceRequest, access: &Access, needed: &Needed) {
    let headers = request.headers();
    let has_body = headers.contains_key(header::CONTENT_LENGTH)
        || headers.contains_key(header::TRANSFER_ENCODING);
    // Sockets ask by themselves, and say why they close.
    if !has_body || request.method() == Method::GET {
        return;
    }
    let body = Lasting::new(request.take_payload(), access, needed);
    let body: Pin<Box<dyn Stream<Item = _>>> = Box::pin(body);
    request.set_payload(Payload::from(body));
}

/// Has the answer's body break off when the right to it ends, unless it is there as a whole.
pub(super) fn outgoing(
    answer: ServiceResponse<impl MessageBody + 'static>,
    access: &Access,
    needed: &Needed,
) -> ServiceResponse<BoxBody> {
    // Sockets and event streams say why they end before they do.
    let kind = answer.headers().get(header::CONTENT_TYPE);
    let says_why = answer.status() == StatusCode::SWITCHING_PROTOCOLS
        || kind.is_some_and(|kind| kind == "text/event-stream");
    let answer = answer.map_into_boxed_body();
    answer.map_body(|_, body| match body.try_into_bytes() {
        Ok(bytes) => BoxBody::new(bytes),
        Err(body) if says_why => body,
        Err(body) => BoxBody::new(Lasting::new(body, access, needed)),
    })
}

/// A body until the right to it ends.
struct Lasting<B> {
    body: B,
    lost: LocalBoxFuture<'static, Ended>,
    ended: Option<Ended>,
}

impl<B> Lasting<B> {
    fn new(body: B, access: &Access, needed: &Needed) -> Self {
        let (access, needed) = (access.clone(), needed.clone());
        let lost = async move {
            match needed {
                Some((role, battery)) => access.lost(role, &battery).await,
                None => access.ended().await,
            }
        };
        Self {
            body,
            lost: lost.boxed_local(),
            ended: None,
        }
    }

    fn poll_ended(&mut self, context: &mut Context<'_>) -> Option<Ended> {
        if self.ended.is_none()
            && let Poll::Ready(ended) = self.lost.poll_unpin(context)
        {
            self.ended = Some(ended);
        }
        self.ended
    }
}

impl Stream for Lasting<Payload> {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(ended) = self.poll_ended(context) {
            let error = io::Error::new(io::ErrorKind::PermissionDenied, BrokeOff(ended));
            return Poll::Ready(Some(Err(PayloadError::Io(error))));
        }
        Pin::new(&mut self.body).poll_next(context)
    }
}

impl MessageBody for Lasting<BoxBody> {
    type Error = Box<dyn Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        if let Some(ended) = self.poll_ended(context) {
            tracing::info!("an answer broke off: {ended}");
            return Poll::Ready(Some(Err(BrokeOff(ended).into())));
        }
        Pin::new(&mut self.body).poll_next(context)
    }
}

#[derive(Debug)]
struct BrokeOff(Ended);

impl fmt::Display for BrokeOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} meanwhile", self.0)
    }
}

impl Error for BrokeOff {}
