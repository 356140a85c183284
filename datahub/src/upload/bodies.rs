//! Memory for the bodies of requests, of all connections together: what comes in, and what is
//! decoded from it.
//!
//! A body takes room as its bytes come and not by what it claims, so that a slow client holds
//! little. One that finds none is refused at once: waiting with half a body in hand would keep the
//! others from ever ending. To be decoded it then waits its turn, in room of its own.

use std::{sync::Arc, time::Duration};

use actix_web::web;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use prometheus::IntGauge;
use rovi_common::http::Problem;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{
    encoding::{self, Packing},
    post::broke_off,
};
use crate::config::Settings;

/// What a byte of a body may become as cells: the shortest integer of msgpack is one of 16 bytes.
const DECODED: usize = 16;

/// What usable settings are.
pub(crate) const NEEDS: &str =
    "bodies_bytes must be twice body_bytes or more, and post_timeout above 0";

/// Tells whether a body has room, and time to be stored.
pub(crate) fn is_usable(settings: &Settings) -> bool {
    let half = settings.bodies_bytes as usize / 2;
    (1..=half).contains(&settings.body_bytes) && !settings.post_timeout.is_zero()
}

/// Room for bodies; half of it for those that come in, half for those that are decoded.
#[derive(Debug)]
pub struct Bodies {
    half_bytes: u32,
    coming: Arc<Semaphore>,
    decoding: Arc<Semaphore>,
    coming_bytes: IntGauge,
    /// Silence after which a body is given up.
    idle: Duration,
    /// How long a body waits to be decoded.
    patience: Duration,
}

/// A whole body, and its room.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    room: Room,
}

/// Room that grows with what is in it.
#[derive(Debug)]
pub(super) struct Room {
    pool: Arc<Semaphore>,
    taken: Option<OwnedSemaphorePermit>,
    bytes: IntGauge,
}

/// Room of what a body was decoded to; free again when dropped.
#[derive(Debug)]
pub(crate) struct DecodedRoom(OwnedSemaphorePermit);

impl Bodies {
    /// Makes room for as many bytes as the settings say; `coming_bytes` tells how many have come.
    pub fn new(settings: &Settings, coming_bytes: IntGauge) -> Self {
        let half_bytes = settings.bodies_bytes / 2;
        let half = || Arc::new(Semaphore::new(half_bytes as usize));
        Self {
            half_bytes,
            coming: half(),
            decoding: half(),
            coming_bytes,
            idle: settings.idle_timeout,
            patience: settings.post_timeout,
        }
    }

    /// Reads a whole body, up to a limit.
    ///
    /// # Errors
    /// 413 beyond the limit, 503 where there is no room, 400 where the body broke off.
    pub(crate) async fn read(
        &self,
        mut payload: web::Payload,
        limit: usize,
    ) -> Result<Body, Problem> {
        let mut room = Room::in_pool(&self.coming, &self.coming_bytes);
        let mut bytes = BytesMut::new();
        loop {
            let next = timeout(self.idle, payload.next()).await;
            let next = next.map_err(|_silent| {
                broke_off(format!("nothing came for {} s", self.idle.as_secs()))
            })?;
            let Some(chunk) = next else {
                break;
            };
            let chunk = chunk.map_err(broke_off)?;
            if bytes.len() + chunk.len() > limit {
                return Err(encoding::too_large(limit));
            }
            room.grow(chunk.len())?;
            bytes.extend_from_slice(&chunk);
        }
        Ok(Body {
            bytes: bytes.freeze(),
            room,
        })
    }

    /// Waits for room to decode a body.
    ///
    /// # Errors
    /// 503 where none came in time.
    pub(crate) async fn room_to_decode(&self, body: &Body) -> Result<DecodedRoom, Problem> {
        let bytes = u32::try_from(body.bytes.len().saturating_mul(DECODED)).unwrap_or(u32::MAX);
        // The largest take all the room and are alone in it.
        let most = bytes.min(self.half_bytes);
        let room = Arc::clone(&self.decoding).acquire_many_owned(most);
        match timeout(self.patience, room).await {
            Ok(Ok(room)) => Ok(DecodedRoom(room)),
            // Nobody closes the pool, so it was the time.
            _ => Err(no_room()),
        }
    }
}

impl Body {
    /// Unpacks the body, up to a limit.
    ///
    /// # Errors
    /// 413 beyond the limit, 503 where there is no room, 400 where it is broken.
    pub(super) fn unpack(mut self, packing: Packing, limit: usize) -> Result<Self, Problem> {
        let bytes = encoding::unpack(self.bytes, packing, limit, &mut self.room)?;
        Ok(Self {
            bytes,
            room: self.room,
        })
    }
}

impl Room {
    fn in_pool(pool: &Arc<Semaphore>, bytes: &IntGauge) -> Self {
        Self {
            pool: Arc::clone(pool),
            taken: None,
            bytes: bytes.clone(),
        }
    }

    /// Makes room of its own.
    #[cfg(test)]
    pub(super) fn of(bytes: usize) -> Self {
        let gauge = IntGauge::new("bytes", "bytes").unwrap();
        Self::in_pool(&Arc::new(Semaphore::new(bytes)), &gauge)
    }

    /// Takes room for more.
    ///
    /// # Errors
    /// 503 where there is none.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        let more = u32::try_from(bytes).map_err(|_more_than_all| no_room())?;
        let more = Arc::clone(&self.pool).try_acquire_many_owned(more);
        let more = more.map_err(|_full| no_room())?;
        self.bytes.add(i64::try_from(bytes).unwrap_or_default());
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            none => *none = Some(more),
        }
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let taken = self
            .taken
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        self.bytes.sub(i64::try_from(taken).unwrap_or_default());
    }
}

impl DecodedRoom {
    /// Gives up what the decoded rows do not need.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let surplus = self.0.num_permits().saturating_sub(bytes);
        drop(self.0.split(surplus));
    }
}

fn no_room() -> Problem {
    Problem::unavailable(
        "the bodies of other requests take all the memory that there is for them (bodies_bytes); \
         nothing was stored, send it again later, or use the socket",
    )
}

#[cfg(test)]
mod tests {
    use actix_web::http::StatusCode;

    use super::*;

    fn bodies(all_bytes: u32) -> Bodies {
        let settings = Settings {
            bodies_bytes: all_bytes,
            ..Settings::default()
        };
        Bodies::new(&settings, IntGauge::new("bytes", "bytes").unwrap())
    }

    fn body(bodies: &Bodies, bytes: &'static [u8]) -> Result<Body, Problem> {
        let mut room = Room::in_pool(&bodies.coming, &bodies.coming_bytes);
        room.grow(bytes.len())?;
        Ok(Body {
            bytes: Bytes::from_static(bytes),
            room,
        })
    }

    #[test]
    fn bodies_that_come_in_share_half_the_room() {
        let bodies = bodies(20);
        let first = body(&bodies, b"1234567").unwrap();
        let refused = body(&bodies, b"1234").unwrap_err();
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.detail.contains("bodies_bytes"), "{refused}");
        let small = body(&bodies, b"123").unwrap();
        assert_eq!(bodies.coming_bytes.get(), 10);
        drop((first, small));
        assert_eq!(bodies.coming_bytes.get(), 0);
        assert!(body(&bodies, b"1234567890").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_waits_for_room_to_decode_it_and_gives_back_what_it_does_not_need() {
        let bodies = bodies(200);
        let (first, second) = (
            body(&bodies, b"123456").unwrap(),
            body(&bodies, b"12").unwrap(),
        );
        let mut decoded = bodies.room_to_decode(&first).await.unwrap();
        let refused = bodies.room_to_decode(&second).await.unwrap_err();
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        decoded.shrink(60);
        assert!(bodies.room_to_decode(&second).await.is_ok());
        // One that is larger than all the room gets all of it.
        drop(decoded);
        let large = body(&bodies, b"12345678901234567890").unwrap();
        assert!(bodies.room_to_decode(&large).await.is_ok());
    }
}
