//! A stack that asks everybody for a token, and an issuer of JWTs.

use std::{path::PathBuf, time::Duration};

use ring::{
    hmac,
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use rovi_common::{clock, testing::eventually};
use serde_json::{Value, json};
use system_tests::Stack;

pub(super) const PATIENCE: Duration = Duration::from_secs(30);
// `scripts/test.sh` looks for these words in the logs of all services.
pub(super) const ADMIN: &str = "the-canary-token-of-the-admin-in-its-file";
pub(super) const SERVICE: &str = "the-canary-token-of-the-services-in-its-file";
pub(super) const ISSUER: &str = "https://id.example";
pub(super) const AUDIENCE: &str = "rovi";

/// A stack that asks everybody.
pub(super) struct Secure {
    pub(super) stack: Stack,
    pub(super) issuer: Issuer,
}

impl Secure {
    /// One that bears any number of wrong credentials, which most tests show.
    pub(super) async fn start() -> Self {
        Self::with(&[("AUTH__LOCKOUT__FAILURES_PER_MINUTE", "0")]).await
    }

    /// One with settings of its own, for both services.
    pub(super) async fn with(settings: &[(&str, &str)]) -> Self {
        let mut stack = Stack::servers();
        for (name, value) in settings {
            stack.set(name, value);
        }
        Self::on(stack).await
    }

    /// One over servers that run, that bears any number of wrong credentials.
    pub(super) async fn over(mut stack: Stack) -> Self {
        stack.set("AUTH__LOCKOUT__FAILURES_PER_MINUTE", "0");
        Self::on(stack).await
    }

    /// One on servers that run.
    pub(super) async fn on(mut stack: Stack) -> Self {
        let issuer = Issuer::new(stack.folder().join("jwks.json"));
        let file = |name: &str, token: &str| {
            let path = stack.folder().join(name);
            std::fs::write(&path, token).unwrap();
            path.display().to_string()
        };
        let (service, admin) = (file("service.token", SERVICE), file("admin.token", ADMIN));
        let jwks = format!("file://{}", issuer.jwks.display());
        stack.set("AUTH__REQUIRED", "true");
        stack.set("AUTH__SERVICE_TOKEN_FILE", &service);
        stack.set("AUTH__ADMIN_TOKEN_FILE", &admin);
        stack.set("AUTH__JWT__ISSUER", ISSUER);
        stack.set("AUTH__JWT__AUDIENCE", AUDIENCE);
        stack.set("AUTH__JWT__JWKS", &jwks);
        stack.start_hub();
        stack.start_twin();
        stack.ready().await;
        Self { stack, issuer }
    }

    pub(super) fn hub(&self, path: &str) -> String {
        format!("{}{path}", self.stack.hub_url())
    }

    pub(super) fn twin(&self, path: &str) -> String {
        format!("{}{path}", self.stack.twin_url())
    }

    /// Makes a token and waits until the twin knows it; returns its id and the token.
    pub(super) async fn token(&self, grants: &[&str], expires_s: Option<u64>) -> (String, String) {
        let body = json!({"name": "test", "grants": grants, "expires_s": expires_s});
        let (status, made) = self
            .ask("POST", &self.hub("/auth/tokens"), ADMIN, &body)
            .await;
        assert_eq!(status, 200, "{made}");
        let token = made["token"].as_str().unwrap().to_owned();
        self.answers(&self.twin(""), &token, 200).await;
        (made["id"].as_str().unwrap().to_owned(), token)
    }

    pub(super) async fn revoke(&self, id: &str) {
        let url = self.hub(&format!("/auth/tokens/{id}"));
        let (status, told) = self.ask("DELETE", &url, ADMIN, &Value::Null).await;
        assert_eq!(status, 200, "{told}");
    }

    /// Waits until a service, which may still be starting, answers a bearer with a status.
    pub(super) async fn answers(&self, base: &str, bearer: &str, expected: u16) {
        let me = format!("{base}/auth/me");
        eventually(PATIENCE, || async {
            let asked = self.stack.http().get(&me).bearer_auth(bearer).send().await;
            match asked.map(|answer| answer.status().as_u16()) {
                Ok(status) if status == expected => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// Asks with a token; returns status and answer.
    pub(super) async fn ask(
        &self,
        method: &str,
        url: &str,
        token: &str,
        body: &Value,
    ) -> (u16, Value) {
        let request = self.stack.http().request(method.parse().unwrap(), url);
        let request = request.bearer_auth(token);
        let request = if body.is_null() {
            request
        } else {
            request.json(body)
        };
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (
            status,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        )
    }

    pub(super) async fn upload(&self, battery: &str) {
        let url = self.hub(&format!("/db/upload/{battery}"));
        let rows = json!([{"test_time": 1.0, "current": 1.0, "voltage": 3.5}]);
        let (status, told) = self.ask("POST", &url, ADMIN, &rows).await;
        assert_eq!(status, 200, "{told}");
    }
}

/// Somebody else who says who people are.
pub(super) struct Issuer {
    jwks: PathBuf,
    key: Ed25519KeyPair,
    name: String,
}

impl Issuer {
    fn new(jwks: PathBuf) -> Self {
        let issuer = Self {
            jwks,
            key: new_key(),
            name: "first".to_owned(),
        };
        issuer.publish();
        issuer
    }

    /// Takes another key and forgets the one before.
    pub(super) fn rotate(&mut self) {
        (self.key, self.name) = (new_key(), "second".to_owned());
        self.publish();
    }

    fn publish(&self) {
        let x = base64url(self.key.public_key().as_ref());
        let key = json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": self.name, "x": x});
        std::fs::write(&self.jwks, json!({"keys": [key]}).to_string()).unwrap();
    }

    /// Signs claims; `changes` replace what is right.
    pub(super) fn jwt(&self, changes: &Value) -> String {
        let now = clock::now_us() / 1_000_000;
        let mut claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": "somebody", "exp": now + 600,
            "rovi_grants": ["admin"],
        });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let header = json!({"alg": "EdDSA", "kid": self.name});
        Self::signed(&header, &claims, |text| {
            self.key.sign(text).as_ref().to_vec()
        })
    }

    pub(super) fn unsigned(&self) -> String {
        let jwt = self.jwt(&json!({}));
        let claims = jwt.split('.').nth(1).unwrap();
        let header = base64url(
            json!({"alg": "none", "kid": self.name})
                .to_string()
                .as_bytes(),
        );
        format!("{header}.{claims}.")
    }

    /// Takes the public key, which everybody knows, for a shared secret.
    pub(super) fn signed_with_public_key(&self) -> String {
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": "somebody", "rovi_grants": ["admin"],
            "exp": clock::now_us() / 1_000_000 + 600,
        });
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key.public_key().as_ref());
        let header = json!({"alg": "HS256", "kid": self.name});
        Self::signed(&header, &claims, |text| {
            hmac::sign(&key, text).as_ref().to_vec()
        })
    }

    fn signed(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
        let part = |value: &Value| base64url(value.to_string().as_bytes());
        let text = format!("{}.{}", part(header), part(claims));
        let signature = base64url(&sign(text.as_bytes()));
        format!("{text}.{signature}")
    }
}

fn new_key() -> Ed25519KeyPair {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap()
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let group = |chunk: &[u8]| {
        let sum = (0..3).fold(0_usize, |sum, at| {
            sum << 8 | usize::from(chunk.get(at).copied().unwrap_or(0))
        });
        let digits = (0..=chunk.len()).map(move |at| DIGITS[sum >> (18 - 6 * at) & 63] as char);
        digits.collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}
