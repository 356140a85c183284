//! Hop 1 of 7, its bound: no frame takes more memory than a frame may have.
//!
//! The WebSocket library gathers the whole of a frame before it looks whether it is too large. So
//! the headers of frames are read here first: the payload of one that is too large is thrown away
//! as it comes, and then the library is given a header that it refuses for its size.
//!
//! Large frames share the memory that there is for them (`frames_bytes`) while they come: a socket
//! is not read on in one until there is room for the whole of it. So however many clients begin
//! frames and never end them, they cost what a few do. Small frames wait for nobody.

use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use actix_web::{FromRequest, HttpRequest, dev, error::PayloadError, web};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::Stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;

/// A header of a masked binary frame whose length is no length.
const TOO_LARGE: [u8; 10] = [0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
/// Bytes of a frame that are thrown away before the client is told; one that announces more is
/// told at once, and may find its connection reset.
const MOST_THROWN_AWAY: u64 = 256 << 20;
/// Messages of fewer bytes need no room: there is one a socket at most.
const SMALL_BYTES: u64 = 64 << 10;

/// Puts the guard before the body of an upgraded request.
///
/// # Errors
/// None that is known; the body is that of another request.
pub(super) async fn guarded(
    request: &HttpRequest,
    body: web::Payload,
    frame_bytes: usize,
    room: Arc<Semaphore>,
) -> Result<web::Payload, actix_web::Error> {
    let guarded = Guarded {
        body: body.into_inner(),
        guard: Guard::new(frame_bytes),
        room: PollSemaphore::new(room),
        seat: None,
    };
    let stream: Pin<Box<dyn Stream<Item = Result<Bytes, PayloadError>>>> = Box::pin(guarded);
    let mut payload = dev::Payload::from(stream);
    web::Payload::from_request(request, &mut payload).await
}

struct Guarded {
    body: dev::Payload,
    guard: Guard,
    room: PollSemaphore,
    /// Room for the message that is coming, if it is large.
    seat: Option<OwnedSemaphorePermit>,
}

impl Stream for Guarded {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let coming = self.guard.coming();
            if coming > 0 && self.seat.is_none() {
                // None only if the semaphore was closed, which nobody does.
                self.seat = ready!(self.room.poll_acquire_many(cx, coming));
            }
            let chunk = match ready!(Pin::new(&mut self.body).poll_next(cx)) {
                Some(Ok(chunk)) => self.guard.pass(chunk),
                end => return Poll::Ready(end),
            };
            if mem::take(&mut self.guard.has_ended) {
                self.seat = None;
            }
            if !chunk.is_empty() {
                return Poll::Ready(Some(Ok(chunk)));
            }
        }
    }
}

/// Where in the sequence of frames the next byte stands.
#[derive(Debug)]
enum Place {
    /// In a header, of which these bytes came.
    Header(Bytes),
    /// In a payload of which so much is to come.
    Payload(u64),
    /// In a payload that is too large, of which so much is to be thrown away.
    TooLarge(u64),
    /// After it was told; nothing is passed on any more.
    Told,
}

#[derive(Debug)]
pub(crate) struct Guard {
    place: Place,
    most: u64,
    /// Bytes that the message may have which is coming; it may be of several frames.
    message: u64,
    /// Whether the frame is the message's last, or none of it: pings come in between.
    is_last: bool,
    /// Whether a message came to its end since this was looked at.
    has_ended: bool,
}

impl Guard {
    pub(crate) fn new(frame_bytes: usize) -> Self {
        Self {
            place: Place::Header(Bytes::new()),
            most: u64::try_from(frame_bytes).unwrap_or(u64::MAX),
            message: 0,
            is_last: false,
            has_ended: false,
        }
    }

    /// Returns how many bytes the message takes that is coming; 0 for a small one.
    fn coming(&self) -> u32 {
        let large = Some(self.message).filter(|bytes| *bytes >= SMALL_BYTES);
        large.map_or(0, |bytes| u32::try_from(bytes).unwrap_or(u32::MAX))
    }

    /// Takes note of a frame that begins; of a message of several frames the length is not told.
    fn begin(&mut self, first: u8, length: u64) {
        const LAST: u8 = 0x80;
        const CONTROL: u8 = 0x08;
        if first & CONTROL != 0 {
            self.is_last = false;
            return;
        }
        self.is_last = first & LAST != 0;
        if self.message == 0 {
            self.message = if self.is_last { length } else { self.most };
        }
    }

    fn end(&mut self) {
        if mem::take(&mut self.is_last) {
            self.message = 0;
            self.has_ended = true;
        }
    }

    /// Returns what may be passed on of the bytes that came next.
    pub(crate) fn pass(&mut self, chunk: Bytes) -> Bytes {
        let chunk = match &mut self.place {
            Place::Header(begun) if !begun.is_empty() => {
                let mut joined = BytesMut::from(mem::take(begun));
                joined.extend_from_slice(&chunk);
                joined.freeze()
            }
            _ => chunk,
        };
        let mut at = 0;
        while at < chunk.len() {
            let rest = chunk.slice(at..);
            match self.place {
                Place::Told => break,
                Place::Payload(left) => {
                    let (taken, next) = take(&rest, left);
                    at += taken;
                    if next.is_none() {
                        self.end();
                    }
                    self.place = next.map_or(Place::Header(Bytes::new()), Place::Payload);
                }
                Place::TooLarge(left) => {
                    let (_, next) = take(&rest, left);
                    if next.is_none() {
                        return self.tell(&chunk.slice(..at));
                    }
                    self.place = next.map_or(Place::Told, Place::TooLarge);
                    break;
                }
                Place::Header(_) => {
                    let Some((first, header, length)) = header(&rest) else {
                        self.place = Place::Header(rest);
                        break;
                    };
                    if length > self.most {
                        self.place = Place::TooLarge(length);
                        if length > MOST_THROWN_AWAY {
                            return self.tell(&chunk.slice(..at));
                        }
                        // What stands before it is passed on; the frame is not.
                        let before = chunk.slice(..at);
                        let told = self.pass(chunk.slice(at + header..));
                        return Bytes::from([before, told].concat());
                    }
                    at += header;
                    self.begin(first, length);
                    self.place = Place::Payload(length);
                    if length == 0 {
                        self.end();
                        self.place = Place::Header(Bytes::new());
                    }
                }
            }
        }
        chunk.slice(..at)
    }

    fn tell(&mut self, before: &Bytes) -> Bytes {
        self.place = Place::Told;
        Bytes::from([before, &TOO_LARGE[..]].concat())
    }
}

/// Tells how many bytes belong to a payload of which `left` are to come, and what is left then.
fn take(bytes: &Bytes, left: u64) -> (usize, Option<u64>) {
    match usize::try_from(left) {
        Ok(left) if left <= bytes.len() => (left, None),
        _ => (bytes.len(), Some(left - bytes.len() as u64)),
    }
}

/// Reads the first byte of a frame's header, its length up to the mask's end, and the length of
/// the payload; none while the header is not whole.
fn header(bytes: &Bytes) -> Option<(u8, usize, u64)> {
    let mut rest = bytes.clone();
    if rest.len() < 2 {
        return None;
    }
    let first = rest.get_u8();
    let second = rest.get_u8();
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let (length, size) = match second & 0x7f {
        126 => (u64::from(rest.try_get_u16().ok()?), 4),
        127 => (rest.try_get_u64().ok()?, 10),
        short => (u64::from(short), 2),
    };
    (bytes.len() >= size + mask).then_some((first, size + mask, length))
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt, stream::unfold};
    use tokio::sync::mpsc;

    use super::*;

    /// A masked frame of so many bytes.
    fn frame(length: usize) -> Vec<u8> {
        let mut frame = vec![0x82];
        match length {
            0..126 => frame.push(0x80 | u8::try_from(length).unwrap()),
            126..65_536 => {
                frame.push(0xfe);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(0xff);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend([1, 2, 3, 4]);
        frame.extend(std::iter::repeat_n(7, length));
        frame
    }

    /// What passes of `bytes` that come in pieces of `piece`.
    fn passed(bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut guard = Guard::new(1000);
        let pieces = bytes.chunks(piece).map(Bytes::copy_from_slice);
        pieces.flat_map(|bytes| guard.pass(bytes)).collect()
    }

    #[test]
    fn frames_within_the_limit_pass_however_they_are_cut() {
        let bytes = [0, 5, 125, 126, 1000, 1].map(frame).concat();
        for piece in [1, 2, 3, 7, 130, 5000] {
            assert_eq!(passed(&bytes, piece), bytes, "{piece}");
        }
    }

    #[test]
    fn a_frame_above_the_limit_is_told_by_a_header_and_nothing_after_it_passes() {
        for length in [1001, 70_000] {
            let bytes = [frame(10), frame(length), frame(10)].concat();
            let expected = [&frame(10)[..], &TOO_LARGE].concat();
            for piece in [1, 13, 4096, 1 << 20] {
                assert_eq!(passed(&bytes, piece), expected, "{length} by {piece}");
            }
        }
    }

    /// A socket whose bytes come through a channel, that finds room here.
    fn socket(room: &Arc<Semaphore>) -> (mpsc::Sender<Bytes>, Guarded) {
        let (bytes, came) = mpsc::channel(4);
        let came: Pin<Box<dyn Stream<Item = _>>> = Box::pin(unfold(came, async |mut came| {
            Some((Ok(came.recv().await?), came))
        }));
        let guarded = Guarded {
            body: dev::Payload::from(came),
            guard: Guard::new(1 << 20),
            room: PollSemaphore::new(Arc::clone(room)),
            seat: None,
        };
        (bytes, guarded)
    }

    fn passes(guarded: &mut Guarded) -> Option<usize> {
        let next = guarded.next().now_or_never()??;
        Some(next.unwrap().len())
    }

    #[test]
    fn large_frames_that_are_never_ended_stop_others_and_no_small_ones() {
        let room = Arc::new(Semaphore::new(1 << 20));
        let (stuck, mut first) = socket(&room);
        let (waiting, mut second) = socket(&room);
        let (small, mut third) = socket(&room);
        let large = Bytes::from(frame(1_000_000));
        for bytes in [large.slice(..1000), large.slice(1000..2000)] {
            stuck.try_send(bytes).unwrap();
        }
        assert_eq!(
            (passes(&mut first), passes(&mut first)),
            (Some(1000), Some(1000))
        );
        for bytes in [large.slice(..1000), large.slice(1000..)] {
            waiting.try_send(bytes).unwrap();
        }
        assert_eq!(
            passes(&mut second),
            Some(1000),
            "its header tells its length"
        );
        assert_eq!(passes(&mut second), None, "there is no room for the rest");
        small.try_send(Bytes::from(frame(1000))).unwrap();
        assert_eq!(passes(&mut third), Some(1008));
        stuck.try_send(large.slice(2000..)).unwrap();
        assert_eq!(passes(&mut first), Some(large.len() - 2000));
        assert_eq!(passes(&mut second), Some(large.len() - 1000));
        assert_eq!(room.available_permits(), 1 << 20, "both have ended");
    }

    #[test]
    fn a_message_in_pieces_keeps_its_room_to_its_last_piece() {
        let room = Arc::new(Semaphore::new(1 << 20));
        let (sender, mut socket) = socket(&room);
        let piece = |first: u8, length: usize| {
            let mut piece = frame(length);
            piece[0] = first;
            Bytes::from(piece)
        };
        let (begun, ping, more, end) = (0x02, 0x89, 0x00, 0x80);
        let pieces = [(begun, 10), (ping, 4), (more, 10), (end, 0), (0x82, 10)];
        let free = pieces.map(|(first, length)| {
            sender.try_send(piece(first, length)).unwrap();
            passes(&mut socket).unwrap();
            room.available_permits()
        });
        assert_eq!(free, [1 << 20, 0, 0, 1 << 20, 1 << 20]);
    }

    #[test]
    fn a_length_that_never_ends_is_told_at_once() {
        let mut bytes = vec![0x82, 0xff];
        bytes.extend((1_u64 << 40).to_be_bytes());
        bytes.extend([1, 2, 3, 4, 5]);
        assert_eq!(passed(&bytes, 100), TOO_LARGE);
    }
}
