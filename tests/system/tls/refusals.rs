//! Who is refused, and what they are told to do.

use std::{path::Path, process::Output, time::Duration};

use rovi_common::testing::eventually;
use system_tests::{Secured, Stack, twin::TwinProcess};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{address, hub, secured};

const PATIENCE: Duration = Duration::from_secs(30);

/// Runs `rovicli status` against a URL, believing whom a file names.
fn status(stack: &Stack, url: &str, ca_file: &Path) -> Output {
    let mut command = stack.rovicli(&["status"]);
    command.args(["--url", url]).env("ROVI_CA_FILE", ca_file);
    command.output().unwrap()
}

fn told(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn rovicli_says_what_to_do_about_a_hub_that_it_does_not_believe() {
    let stack = hub().await;
    let (url, own) = (stack.hub_url(), secured(&stack).ca_file());
    let known = status(&stack, &url, &own);
    assert!(known.status.success(), "{known:?}");

    let other = Secured::new(stack.folder().join("other"));
    let error = told(&status(&stack, &url, &other.ca_file()));
    assert!(error.contains("--ca-file"), "{error}");
    // An empty variable counts as none: the system's authorities do not know ours.
    let error = told(&status(&stack, &url, Path::new("")));
    assert!(error.contains("--ca-file"), "{error}");
    let by_name = url.replace("127.0.0.1", "localhost");
    let error = told(&status(&stack, &by_name, &own));
    assert!(error.contains("another name"), "{error}");
    let plain = url.replace("https", "http");
    let error = told(&status(&stack, &plain, &own));
    assert!(error.contains("https://"), "{error}");
    let error = told(&status(&stack, &url, Path::new("/no/such/file")));
    assert!(error.contains("/no/such/file"), "{error}");
}

#[tokio::test]
async fn an_expired_certificate_is_refused_until_it_is_renewed_in_place() {
    let mut stack = Stack::servers();
    stack.encrypt();
    secured(&stack).certify(-2, -1);
    stack.start_hub();
    let (url, own) = (stack.hub_url(), secured(&stack).ca_file());
    eventually(PATIENCE, || async {
        let error = told(&status(&stack, &url, &own));
        error.contains("has expired").then_some(()).ok_or(error)
    })
    .await;
    secured(&stack).certify(-1, 1);
    eventually(PATIENCE, || async {
        let output = status(&stack, &url, &own);
        output
            .status
            .success()
            .then_some(())
            .ok_or(format!("{output:?}"))
    })
    .await;
}

#[tokio::test]
async fn services_say_what_to_do_about_a_hub_or_a_bus_that_they_do_not_believe() {
    let mut stack = hub().await;
    let written = secured(&stack).certify(-1, 1);
    stack.nats.server.set_tls(written.cert, written.key);
    stack.nats.server.stop();
    stack.nats.server.start_again().unwrap();
    let other = Secured::new(stack.folder().join("other"));
    let ca_file = other.ca_file().display().to_string();
    let mut twin = TwinProcess::new(&stack, 1, &stack.hub_url(), &[("TLS__CA_FILE", &ca_file)]);
    twin.start("");
    eventually(PATIENCE, || async {
        let problems = twin.get("/ready").await.unwrap_err();
        let log = std::fs::read_to_string(stack.folder().join("twin-1.log")).unwrap();
        let is_told = problems.contains("tls.ca_file")
            && problems.contains("NATS is not connected")
            && log.contains("127.0.0.1 is not believed");
        is_told.then_some(()).ok_or(problems + &log)
    })
    .await;
}

#[tokio::test]
async fn tls_1_2_is_spoken_and_1_1_is_not() {
    let stack = hub().await;
    // The first record: a handshake, or a fatal alert about the version.
    assert_eq!(answer(&stack, 3).await[0], 22);
    let [kind, _, _, _, _, level, reason] = answer(&stack, 2).await;
    assert_eq!((kind, level, reason), (21, 2, 70));
}

/// Says hello in TLS 1.2 (minor version 3) or 1.1 (2) and returns the first bytes of the answer.
async fn answer(stack: &Stack, minor: u8) -> [u8; 7] {
    let mut socket = TcpStream::connect(address(stack)).await.unwrap();
    socket.write_all(&hello(minor)).await.unwrap();
    let mut answer = [0; 7];
    socket.read_exact(&mut answer).await.unwrap();
    answer
}

/// A client's first words, as RFC 5246 has them.
fn hello(minor: u8) -> Vec<u8> {
    // P-256, points uncompressed, signatures by ECDSA on it with SHA-256.
    let groups: &[u8] = &[0, 10, 0, 4, 0, 2, 0, 23];
    let points: &[u8] = &[0, 11, 0, 2, 1, 0];
    let signatures: &[u8] = &[0, 13, 0, 4, 0, 2, 4, 3];
    let extensions = [groups, points, signatures].concat();
    let mut hello = vec![3, minor];
    hello.extend([7; 32]);
    // No session, one suite (ECDHE, ECDSA, AES-128-GCM, SHA-256), no compression.
    hello.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    hello.extend([0, u8::try_from(extensions.len()).unwrap()]);
    hello.extend(extensions);
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    record
}
