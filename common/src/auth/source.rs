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
    let named: Vec<&str> = headers
        .get_all(FORWARDED_FOR)
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    let mut nearest = peer;
    for name in named.iter().rev() {
        // What is no address was not written by a proxy of ours: nothing before it counts.
        let Ok(address) = name.trim().parse() else {
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
    use actix_web::test::TestRequest;

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
}
