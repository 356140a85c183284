//! The keys of an outside issuer by https, from an authority of one's own.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::Path,
};

use actix_web::{App, HttpServer, rt::System, web};
use rovi_common::tls::{self, Tls, TlsSettings};
use rovicli::certificates::Written;
use serde_json::{Value, json};
use system_tests::Secured;

use super::support::Secure;

/// Serves a text by https for as long as the tests run; returns its URL.
fn serve(text: String, written: Written) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("https://{}/jwks", listener.local_addr().unwrap());
    let settings = TlsSettings {
        cert_file: Some(written.cert),
        key_file: Some(written.key),
        ca_file: None,
    };
    let tls = Tls::open(&settings).unwrap();
    std::thread::spawn(move || {
        System::new().block_on(async {
            let server = HttpServer::new(move || {
                let text = web::Data::new(text.clone());
                let jwks = async |text: web::Data<String>| text.to_string();
                App::new()
                    .app_data(text)
                    .route("/jwks", web::get().to(jwks))
            });
            let server = server.workers(1).disable_signals();
            let server = tls::listen(server, listener, tls.as_ref()).unwrap();
            server.run().await.unwrap();
        });
    });
    url
}

/// Starts the hub anew, believing an authority about the issuer; returns how it answers a JWT.
async fn answer(secure: &mut Secure, ca_file: &Path) -> (u16, Value) {
    let ca_file = ca_file.display().to_string();
    secure.stack.set("AUTH__JWT__CA_FILE", &ca_file);
    secure.stack.kill_hub();
    secure.stack.start_hub();
    secure.stack.hub_ready().await;
    let (me, jwt) = (secure.hub("/auth/me"), secure.issuer.jwt(&json!({})));
    secure.ask("GET", &me, &jwt, &Value::Null).await
}

#[tokio::test]
async fn an_issuer_is_believed_by_the_authority_of_the_settings_alone() {
    let mut secure = Secure::start().await;
    let folder = secure.stack.folder().to_owned();
    let (own, other) = (folder.join("own"), folder.join("other"));
    let (own, other) = (Secured::new(own), Secured::new(other));
    let keys = std::fs::read_to_string(folder.join("jwks.json")).unwrap();
    let url = serve(keys, own.certify(-1, 1));
    secure.stack.set("AUTH__JWT__JWKS", &url);
    // Nobody knows then whether the JWT counts, and nobody is blamed for it.
    let (status, told) = answer(&mut secure, &other.ca_file()).await;
    let detail = told["detail"].as_str().unwrap_or_default();
    assert_eq!((status, detail.contains("issuer")), (503, true), "{told}");
    let (status, told) = answer(&mut secure, &own.ca_file()).await;
    assert_eq!((status, &told["name"]), (200, &json!("somebody (JWT)")));
}
