//! Where webhooks may go: whoever may make rules must not reach from here what they cannot reach
//! themselves.
//!
//! Names are looked at when they are resolved, and the connection goes to one of the very addresses that
//! were found fit: a name that points elsewhere a moment later leads nowhere.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rovi_common::network::Network;
use url::{Host, Url};

/// What is reached besides the addresses that everybody reaches.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    networks: Vec<Network>,
    names: Vec<String>,
    /// Whether this machine itself counts: where only its own users reach the service anyway.
    is_loopback_open: bool,
}

impl Reach {
    /// Reads `alerts.webhook_allow`: networks, addresses and names of hosts.
    ///
    /// # Errors
    /// One is none of these; the text names the setting.
    pub fn of(allow: &[String], is_loopback_open: bool) -> Result<Self, String> {
        let mut reach = Self {
            is_loopback_open,
            ..Self::default()
        };
        for text in allow {
            if let Ok(network) = text.parse() {
                reach.networks.push(network);
            } else if let Ok(Host::Domain(name)) = Host::parse(text) {
                reach.names.push(name);
            } else {
                return Err(format!(
                    "alerts.webhook_allow: {text:?} is no network (10.1.0.0/16), address or name of a \
                     host"
                ));
            }
        }
        Ok(reach)
    }

    /// Tells why a URL may not be posted to as far as it shows by itself, or nothing.
    pub(super) fn problem(&self, url: &Url) -> Option<String> {
        if !matches!(url.scheme(), "http" | "https") {
            let scheme = url.scheme();
            return Some(format!("`{scheme}` is not spoken here: http and https are"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            let problem = "it has a name or password, which everybody who reads the rule would see: \
                           receivers know us by `Rovi-Signature`";
            return Some(problem.to_owned());
        }
        let address = match url.host()? {
            Host::Ipv4(address) => IpAddr::V4(address),
            Host::Ipv6(address) => IpAddr::V6(address),
            Host::Domain(_) => return None,
        };
        (!self.has(address))
            .then(|| format!("{address} is an inner address; see alerts.webhook_allow"))
    }

    fn has(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        !is_inner(address)
            || (self.is_loopback_open && address.is_loopback())
            || self.networks.iter().any(|one| one.contains(address))
    }

    async fn resolve(&self, name: &str) -> Result<Vec<SocketAddr>, String> {
        let found = tokio::net::lookup_host((name, 0)).await;
        let found = found.map_err(|error| error.to_string())?;
        let is_listed = self.names.iter().any(|one| one.eq_ignore_ascii_case(name));
        let fit: Vec<SocketAddr> = found
            .filter(|address| is_listed || self.has(address.ip()))
            .collect();
        if fit.is_empty() {
            return Err(format!(
                "{name} has inner addresses only; see alerts.webhook_allow"
            ));
        }
        Ok(fit)
    }
}

/// Resolves names to addresses that are in reach.
#[derive(Debug)]
pub(super) struct Resolver(pub(super) Arc<Reach>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = Arc::clone(&self.0);
        Box::pin(async move {
            let fit = reach.resolve(name.as_str()).await?;
            let addresses: Addrs = Box::new(fit.into_iter());
            Ok(addresses)
        })
    }
}

/// Whether an address is of this machine or of a network that outsiders cannot reach; those by which
/// clouds tell machines their secrets are among them.
fn is_inner(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, third, _] = address.octets();
            let is_shared = first == 100 && (64..128).contains(&second);
            let is_benchmark = first == 198 && (second == 18 || second == 19);
            let is_protocol = first == 192 && second == 0 && third == 0;
            address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_multicast()
                || address.is_documentation()
                || is_shared
                || is_benchmark
                || is_protocol
                || first == 0
                || first >= 240
        }
        IpAddr::V6(address) => {
            if let Some(mapped) = address.to_ipv4() {
                return is_inner(IpAddr::V4(mapped));
            }
            // Only 2000::/3 is for everyone; within it, NAT64 and 6to4 hide inner addresses.
            let [first, second, ..] = address.segments();
            first & 0xe000 != 0x2000 || first == 0x2002 || (first == 0x2001 && second == 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INNER: [&str; 18] = [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "192.0.0.192",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fd00:ec2::254",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::",
        "ff02::1",
    ];

    #[test]
    fn inner_addresses_are_known_in_all_their_forms() {
        let reach = Reach::default();
        for inner in INNER {
            assert!(!reach.has(inner.parse().unwrap()), "{inner}");
        }
        for outer in ["1.1.1.1", "172.32.0.1", "2606:4700::1111"] {
            assert!(reach.has(outer.parse().unwrap()), "{outer}");
        }
    }

    #[test]
    fn however_an_address_is_written_it_is_the_same() {
        let reach = Reach::default();
        for url in [
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://[::ffff:7f00:1]/",
            "http://169.254.169.254/latest/meta-data",
            "https://10.0.0.1/",
        ] {
            let problem = reach.problem(&url.parse().unwrap()).unwrap();
            assert!(problem.contains("inner"), "{url}: {problem}");
        }
        for url in [
            "ftp://receiver.example/",
            "http://user:word@receiver.example/",
        ] {
            assert!(reach.problem(&url.parse().unwrap()).is_some(), "{url}");
        }
        for url in ["http://receiver.example/", "https://receiver.example/"] {
            assert_eq!(reach.problem(&url.parse().unwrap()), None, "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_leads_only_where_it_may_and_connects_to_what_was_looked_at() {
        let none = Reach::default().resolve("localhost").await.unwrap_err();
        assert!(
            none.contains("localhost has inner addresses only"),
            "{none}"
        );
        let listed = Reach::of(&["localhost".to_owned()], false).unwrap();
        assert!(
            listed.resolve("localhost").await.unwrap()[0]
                .ip()
                .is_loopback()
        );
        // The name is listed, the address is not.
        assert!(
            listed
                .problem(&"http://127.0.0.1/".parse().unwrap())
                .is_some()
        );
        let network = Reach::of(&["127.0.0.0/8".to_owned(), "::1".to_owned()], false).unwrap();
        assert!(network.resolve("localhost").await.is_ok());
        assert!(
            network
                .problem(&"http://10.0.0.1/".parse().unwrap())
                .is_some()
        );
    }

    #[test]
    fn loopback_alone_is_open_where_only_its_users_are() {
        let reach = Reach::of(&[], true).unwrap();
        assert!(reach.has("127.0.0.1".parse().unwrap()) && reach.has("::1".parse().unwrap()));
        assert!(!reach.has("169.254.169.254".parse().unwrap()));
        assert!(!reach.has("10.0.0.1".parse().unwrap()));
        assert!(
            Reach::of(&["10.0.0.0/40".to_owned()], false)
                .unwrap_err()
                .contains("10.0.0.0/40")
        );
    }
}
