//! `Content-Encoding` of bodies: gzip and zstd, bounded after decompression.

use std::io::Read;

use actix_web::http::{StatusCode, header::HeaderMap};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use rovi_common::http::Problem;

use super::bodies::Room;

/// The largest window of a zstd body, as a power of two: 8 MiB, what every decoder must offer.
/// Larger ones would take memory before a byte is known to be worth it.
const ZSTD_WINDOW_LOG: u32 = 23;
/// Bytes that are unpacked before room for them is taken.
const PIECE_BYTES: u64 = 64 << 10;

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    /// Reads `Content-Encoding`.
    ///
    /// # Errors
    /// 415 that names what is known.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut given = headers.get_all("Content-Encoding");
        let (first, second) = (given.next(), given.next());
        let name = first.map_or(Ok(""), |value| value.to_str());
        let name = name.unwrap_or_default().trim().to_ascii_lowercase();
        match (name.as_str(), second) {
            ("" | "identity", None) if first.is_none() || !name.is_empty() => Ok(Self::Plain),
            ("gzip" | "x-gzip", None) => Ok(Self::Gzip),
            ("zstd", None) => Ok(Self::Zstd),
            _ => Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "Content-Encoding may be gzip or zstd, once, or missing",
            )
            .at("Content-Encoding")),
        }
    }
}

/// Unpacks a body of which no more than `limit` bytes may come, into `room` that grows.
///
/// # Errors
/// 413 for a larger one, 503 where there is no room, 400 for one that is broken.
pub(super) fn unpack(
    body: Bytes,
    packing: Packing,
    limit: usize,
    room: &mut Room,
) -> Result<Bytes, Problem> {
    match packing {
        Packing::Plain => Ok(body),
        Packing::Gzip => read(MultiGzDecoder::new(body.as_ref()), "gzip", limit, room),
        Packing::Zstd => {
            let wrong = |error| broken("zstd", &error);
            let mut decoder = zstd::Decoder::with_buffer(body.as_ref()).map_err(wrong)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(wrong)?;
            read(decoder, "zstd", limit, room)
        }
    }
}

fn read(
    mut decoder: impl Read,
    name: &str,
    limit: usize,
    room: &mut Room,
) -> Result<Bytes, Problem> {
    let mut unpacked = Vec::new();
    loop {
        let piece = decoder
            .by_ref()
            .take(PIECE_BYTES)
            .read_to_end(&mut unpacked);
        let piece = piece.map_err(|error| broken(name, &error))?;
        if unpacked.len() > limit {
            return Err(too_large(limit));
        }
        if piece == 0 {
            return Ok(unpacked.into());
        }
        room.grow(piece)?;
    }
}

fn broken(name: &str, error: &std::io::Error) -> Problem {
    Problem::bad_request(format!("the body is no {name}: {error}")).at("Content-Encoding")
}

/// 413 with the limit.
pub(super) fn too_large(limit: usize) -> Problem {
    Problem::too_large(format!(
        "the body is larger than {limit} bytes (unpacked); cut it, or use the socket"
    ))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Bytes {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap().into()
    }

    fn zstd(bytes: &[u8]) -> Bytes {
        zstd::encode_all(bytes, 3).unwrap().into()
    }

    #[test]
    fn a_bomb_is_refused_with_the_limit() {
        let zeros = vec![0; 10_000_000];
        for (body, packing) in [(gzip(&zeros), Packing::Gzip), (zstd(&zeros), Packing::Zstd)] {
            assert!(body.len() < 20_000, "{packing:?} {}", body.len());
            let problem =
                unpack(body.clone(), packing, 9_999_999, &mut Room::of(20 << 20)).unwrap_err();
            assert_eq!(problem.status, StatusCode::PAYLOAD_TOO_LARGE);
            assert!(problem.detail.contains("9999999 bytes"));
            let refused = unpack(body.clone(), packing, 10_000_000, &mut Room::of(1 << 20));
            assert_eq!(refused.unwrap_err().status, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(
                unpack(body, packing, 10_000_000, &mut Room::of(20 << 20))
                    .unwrap()
                    .len(),
                10_000_000
            );
        }
    }

    #[test]
    fn parts_one_after_another_are_one_body_and_broken_ones_are_refused() {
        for (pack, packing) in [
            (gzip as fn(&[u8]) -> Bytes, Packing::Gzip),
            (zstd, Packing::Zstd),
        ] {
            let both = [pack(b"ab"), pack(b"cd")].concat();
            assert_eq!(
                unpack(both.clone().into(), packing, 4, &mut Room::of(4)).unwrap(),
                "abcd"
            );
            let short = Bytes::from(both).slice(..12);
            let problem = unpack(short, packing, 4, &mut Room::of(4)).unwrap_err();
            assert_eq!(problem.status, StatusCode::BAD_REQUEST, "{packing:?}");
        }
    }
}
