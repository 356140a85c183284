//! Who may say and hear what on the bus: every kind of credential, asked of a real NATS server in its
//! own words, so that each answer is the server's and needs no waiting.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::Path,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use rovi_common::{
    rights::{Party, seed::Seed},
    testing,
};
use rovicli::bus_credentials::BusCredentials;
use serde_json::{Value, json};

/// What is tried: the name, and the words to the server.
const TRIED: [(&str, &str); 10] = [
    ("publish rows", "PUB rovi.rows.acme-1 0\r\n\r\n"),
    ("subscribe rows", "SUB rovi.rows.* 1\r\n"),
    ("publish estimates", "PUB rovi.estimates.acme-1.e 0\r\n\r\n"),
    (
        "delete stream",
        "PUB $JS.API.STREAM.DELETE.ROVI_ROWS 0\r\n\r\n",
    ),
    ("hear the twin's answers", "SUB _INBOX_twin.> 1\r\n"),
    ("register", "PUB rovi.hub.register 0\r\n\r\n"),
    ("command", "PUB rovi.twin.promote 0\r\n\r\n"),
    ("checkpoint", "PUB $KV.rovi_checkpoints.acme-1.e 0\r\n\r\n"),
    ("own tenant", "SUB rovi.tenant.acme.state.* 1\r\n"),
    ("other tenant", "SUB rovi.tenant.beta.state.* 1\r\n"),
];

/// Who may what, in the order of [`TRIED`].
const MAY: [(&str, [bool; 10]); 5] = {
    const Y: bool = true;
    const N: bool = false;
    [
        ("datahub", [Y, N, N, N, N, N, N, N, N, N]),
        ("twin", [N, N, Y, N, Y, Y, Y, Y, N, N]),
        ("operator", [N, Y, N, N, N, Y, Y, N, Y, Y]),
        ("reader-acme", [N, N, N, N, N, N, N, N, Y, N]),
        ("admin", [Y, Y, Y, Y, Y, Y, Y, Y, Y, Y]),
    ]
};

/// A connection that speaks the server's protocol.
struct Wire {
    reader: BufReader<TcpStream>,
}

impl Wire {
    /// Connects and says who it is; the server's words where it refuses.
    fn connect(url: &str, seed: Option<&Seed>) -> Result<Self, String> {
        loop {
            let connected = Self::try_connect(url, seed);
            let is_late = |refusal: &String| refusal.contains("Authentication Timeout");
            // A busy machine may take longer to say who it is than the server waits.
            if !connected.as_ref().err().is_some_and(is_late) {
                return connected;
            }
        }
    }

    fn try_connect(url: &str, seed: Option<&Seed>) -> Result<Self, String> {
        let stream = TcpStream::connect(url.trim_start_matches("nats://")).unwrap();
        let mut wire = Self {
            reader: BufReader::new(stream),
        };
        let info = wire.line();
        let info: Value = serde_json::from_str(info.trim_start_matches("INFO ")).unwrap();
        let mut hello =
            json!({"verbose": false, "pedantic": false, "lang": "test", "version": "0"});
        if let Some(seed) = seed {
            let nonce = info["nonce"].as_str().unwrap();
            let pair = KeyPair::from_seed(seed.expose()).unwrap();
            let signature = pair.sign(nonce.as_bytes()).unwrap();
            hello["nkey"] = seed.public_key().into();
            hello["sig"] = BASE64_URL_SAFE_NO_PAD.encode(signature).into();
        }
        wire.ask(&format!("CONNECT {hello}\r\n"))?;
        Ok(wire)
    }

    /// Says something; the server's words where it refuses.
    fn ask(&mut self, words: &str) -> Result<(), String> {
        let said = format!("{words}PING\r\n");
        self.reader.get_mut().write_all(said.as_bytes()).unwrap();
        loop {
            match self.line() {
                answer if answer.starts_with("PONG") => return Ok(()),
                answer if answer.starts_with("-ERR") || answer.is_empty() => return Err(answer),
                _message => {}
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line
    }
}

fn seed(bus: &BusCredentials, party: &str) -> Seed {
    let party: Party = party.parse().unwrap();
    Seed::read("seed", &bus.seed_file(&party)).unwrap()
}

fn made(folder: &Path) -> BusCredentials {
    let tenants = ["acme", "beta"].map(|tenant| tenant.parse().unwrap());
    BusCredentials::bring_up_to_date(folder, &tenants).unwrap()
}

#[test]
fn each_party_may_do_on_the_bus_what_it_is_there_for_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let bus = made(folder.path());
    let nats = testing::guarded_nats(bus.users());
    let url = nats.server.url();
    let mut wrong = Vec::new();
    for (party, may) in MAY {
        let seed = seed(&bus, party);
        for ((what, words), may) in TRIED.into_iter().zip(may) {
            let mut wire = Wire::connect(&url, Some(&seed)).unwrap();
            let answer = wire.ask(words);
            let is_as_meant = match &answer {
                Ok(()) => may,
                Err(refusal) => !may && refusal.contains("Permissions Violation"),
            };
            if !is_as_meant {
                wrong.push(format!("{party}: {what}: {answer:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let refused = MAY.iter().flat_map(|(_, may)| may).filter(|may| !**may);
    assert_eq!(nats.server.refusals().len(), refused.count());
}

#[test]
fn nobody_connects_without_a_seed_that_counts() {
    let folder = tempfile::tempdir().unwrap();
    let bus = made(folder.path());
    let nats = testing::guarded_nats(bus.users());
    let stranger = Seed::generate().unwrap();
    for seed in [None, Some(&stranger)] {
        let refusal = Wire::connect(&nats.server.url(), seed).err().unwrap();
        assert!(refusal.contains("Authorization Violation"), "{refusal}");
    }
}

#[test]
fn a_seed_that_was_taken_away_is_refused_from_the_next_settings_on() {
    let folder = tempfile::tempdir().unwrap();
    let bus = made(folder.path());
    let lost = seed(&bus, "reader-acme");
    std::fs::remove_file(bus.seed_file(&"reader-acme".parse().unwrap())).unwrap();
    let bus = BusCredentials::bring_up_to_date(folder.path(), &[]).unwrap();
    let nats = testing::guarded_nats(bus.users());
    let url = nats.server.url();
    assert!(Wire::connect(&url, Some(&lost)).is_err());
    assert!(Wire::connect(&url, Some(&seed(&bus, "reader-beta"))).is_ok());
}
