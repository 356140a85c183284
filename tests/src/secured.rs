//! A stack whose services speak TLS, by an authority of its own, and ask everybody for a token.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use rovi_common::{
    auth::secret::{self, Token},
    clock,
    tls::Trust,
};
use rovicli::certificates::{Authority, Written};

use crate::Stack;

const HOUR_S: i64 = 3600;
const ADMIN: &str = "the-token-of-the-admin-in-its-file";
const SERVICE: &str = "the-token-of-the-services-in-its-file";

/// An authority, and what it and the stack's services are known by.
#[derive(Debug)]
pub struct Secured {
    authority: Authority,
    folder: PathBuf,
    token: Option<Token>,
}

impl Secured {
    /// Makes an authority in a folder.
    pub fn new(folder: PathBuf) -> Self {
        let made = Authority::make(&folder, "authority of a test", &hours(-1, 24));
        Self {
            authority: made.expect("the test's folder is writable").0,
            folder,
            token: None,
        }
    }

    /// Returns the file with the authority's certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Returns who believes this authority.
    pub fn trust(&self) -> Trust {
        Trust::of(Some(&self.ca_file())).expect("the authority's file is there")
    }

    /// Certifies 127.0.0.1 for hours from now, in place of the certificate before.
    pub fn certify(&self, from: i64, until: i64) -> Written {
        let names = ["127.0.0.1".to_owned()];
        let written = self
            .authority
            .certify(&self.folder, &names, &hours(from, until));
        written.expect("the test's folder is writable")
    }

    pub(crate) fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    pub(crate) fn http(&self) -> reqwest::Client {
        let shown = secret::headers(self.token.as_ref().map(Token::expose));
        let http = self.trust().http().default_headers(shown);
        // For the reason of `http_client`.
        let http = http.pool_max_idle_per_host(0).build();
        http.expect("a client can be made")
    }
}

impl Stack {
    /// Has hub and twin speak TLS, and believe nobody but the authority that is made for it, from
    /// their next start.
    pub fn encrypt(&mut self) {
        let secured = Secured::new(self.folder().join("tls"));
        let Written { cert, key } = secured.certify(-1, 1);
        self.set("TLS__CERT_FILE", path(&cert));
        self.set("TLS__KEY_FILE", path(&key));
        self.set("TLS__CA_FILE", path(&secured.ca_file()));
        self.secure(secured);
    }

    /// Has hub and twin ask everybody for a token, from their next start; this stack's clients show
    /// that of an admin.
    pub fn ask_everybody(&mut self) {
        for (setting, token) in [("SERVICE", SERVICE), ("ADMIN", ADMIN)] {
            let file = self.folder().join(format!("{setting}.token"));
            std::fs::write(&file, token).expect("the test's folder is writable");
            self.set(&format!("AUTH__{setting}_TOKEN_FILE"), path(&file));
        }
        self.set("AUTH__REQUIRED", "true");
        if let Some(secured) = self.unsecure() {
            let token = Some(Token::new(ADMIN.to_owned()));
            self.secure(Secured { token, ..secured });
        }
    }

    /// Returns whose certificates count for this stack's clients.
    pub fn trust(&self) -> Trust {
        self.secured()
            .map_or_else(|| self.system_trust(), Secured::trust)
    }

    /// Returns the token of this stack's clients.
    pub fn token(&self) -> Option<Token> {
        self.secured()?.token().cloned()
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("the test's folder has a plain name")
}

fn hours(from: i64, until: i64) -> Range<i64> {
    let now = clock::now_us() / 1_000_000;
    now + from * HOUR_S..now + until * HOUR_S
}
