//! From which address a request comes, where trusted proxies may stand before the service.

use std::net::IpAddr;

use actix_web::{dev::ServiceRequest, http::header::HeaderMap};

use crate::network::Network;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// Returns the address of whoever asks: the last one of `X-Forwarded-For` that is no trusted proxy,
/// where one of those handed the request over; else that of the connection.
pub(super) fn of(request: &ServiceRequest, proxies: &[Network]) -> Option<IpAddr> {
    let peer = request.peer_addr()?.ip();
    Some(behind(peer, request.headers(), proxies))
}

fn behind(peer: IpAddr, headers: &HeaderMap, proxies: &[Network]) -> IpAddr {
    let is_trusted = |address: &IpAddr| proxies.iter().any(|proxy| proxy.contains(*address));
    if !is_trusted(&peer) {
        return peer;
    }
    // As bytes: a line that is no text holds what a proxy appended to it, too.
    let named: Vec<&[u8]> = headers
        .get_all(FORWARDED_FOR)
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .collect();
    let mut nearest = peer;
    for name in named.iter().rev() {
        // What is no address was not written by a proxy of ours: nothing before it counts.
        let text = std::str::from_utf8(name.trim_ascii()).ok();
        let Some(address) = text.and_then(|text| text.parse().ok()) else {
            break;
        };
        nearest = address;
        if !is_trusted(&address) {
            break;
        }
    }
    nearest
}

#[cfg(test)]
mod tests {
    use actix_web::{
        http::header::{HeaderName, HeaderValue},
        test::TestRequest,
    };

    use super::*;

    fn source(peer: &str, forwarded: &[&'static str]) -> String {
        let request = forwarded
            .iter()
            .fold(TestRequest::default(), |request, value| {
                request.append_header((FORWARDED_FOR, *value))
            });
        let request = request.peer_addr(format!("{peer}:1").parse().unwrap());
        let proxies = ["10.0.0.0/8".parse().unwrap()];
        of(&request.to_srv_request(), &proxies).unwrap().to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        assert_eq!(source("192.0.2.9", &["1.1.1.1"]), "192.0.2.9");
        assert_eq!(source("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(
            source("10.0.0.1", &["1.1.1.1, 192.0.2.9, 10.0.0.2"]),
            "192.0.2.9"
        );
        assert_eq!(source("10.0.0.1", &["1.1.1.1", "192.0.2.9"]), "192.0.2.9");
        assert_eq!(source("10.0.0.1", &["1.1.1.1, nonsense"]), "10.0.0.1");
    }

    #[test]
    fn a_line_that_is_no_text_hides_nobody() {
        let mut headers = HeaderMap::new();
        for line in [b"1.1.1.1".as_slice(), b"\xff, 192.0.2.9"] {
            let value = HeaderValue::from_bytes(line).unwrap();
            headers.append(HeaderName::from_static(FORWARDED_FOR), value);
        }
        let proxies = ["10.0.0.0/8".parse().unwrap()];
        let source = behind("10.0.0.1".parse().unwrap(), &headers, &proxies);
        assert_eq!(source.to_string(), "192.0.2.9");
    }
}
