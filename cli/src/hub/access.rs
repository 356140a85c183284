//! Tokens, and who one is.

use anyhow::{Context, Result};
use rovi_common::auth::{Grant, audit::Chained, secret::Token};
use serde::Deserialize;

use super::Hub;

/// What the hub tells of a token.
#[derive(Debug, Clone, Deserialize)]
pub struct TokenInfo {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What its bearer may do.
    pub grants: Vec<Grant>,
    /// Until when it counts, in microseconds since 1970.
    pub expires: Option<i64>,
    /// Since when it does not any more.
    pub revoked: Option<i64>,
}

/// Who the hub takes one for.
#[derive(Debug, Clone, Deserialize)]
pub struct Me {
    /// The name.
    pub name: String,
    /// What one may do.
    pub grants: Vec<Grant>,
}

impl Hub {
    /// Makes a token.
    ///
    /// # Errors
    /// The hub is away or refuses.
    pub async fn create_token(
        &self,
        name: &str,
        grants: &[Grant],
        expires_s: Option<u64>,
    ) -> Result<Token> {
        #[derive(Deserialize)]
        struct Made {
            token: String,
        }
        let body = serde_json::json!({"name": name, "grants": grants, "expires_s": expires_s});
        let request = self.http.post(self.path("auth/tokens")?).json(&body);
        let made = self.send(request).await?.json::<Made>().await;
        let made = made.context("the hub's answer is not as expected")?;
        Ok(Token::new(made.token))
    }

    /// Lists tokens.
    ///
    /// # Errors
    /// The hub is away or refuses.
    pub async fn tokens(&self) -> Result<Vec<TokenInfo>> {
        let answer = self.send(self.http.get(self.path("auth/tokens")?)).await?;
        answer
            .json()
            .await
            .context("the hub's list is not as expected")
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// The hub is away, or knows no such token.
    pub async fn revoke_token(&self, id: &str) -> Result<TokenInfo> {
        let mut url = self.path("auth/tokens")?;
        if let Ok(mut path) = url.path_segments_mut() {
            path.push(id);
        }
        let answer = self.send(self.http.delete(url)).await?;
        answer
            .json()
            .await
            .context("the hub's answer is not as expected")
    }

    /// Revokes JWTs: one by `jti`, or those of a `subject`.
    ///
    /// # Errors
    /// The hub is away, or refuses.
    pub async fn revoke_jwts(&self, which: &serde_json::Value) -> Result<()> {
        let url = self.path("auth/revocations")?;
        self.send(self.http.post(url).json(which)).await.map(drop)
    }

    /// Lists entries of the audit behind one, oldest first; empty at the end.
    ///
    /// # Errors
    /// The hub is away or refuses.
    pub async fn audit(&self, after: i64) -> Result<Vec<Chained>> {
        #[derive(Deserialize)]
        struct Page {
            entries: Vec<Chained>,
        }
        let request = self.http.get(self.path(&format!("audit?after={after}"))?);
        let page = self.send(request).await?.json::<Page>().await;
        Ok(page.context("the hub's list is not as expected")?.entries)
    }

    /// Asks who one is.
    ///
    /// # Errors
    /// The hub is away, or the token does not count.
    pub async fn me(&self) -> Result<Me> {
        let answer = self.send(self.http.get(self.path("auth/me")?)).await?;
        answer
            .json()
            .await
            .context("the hub's answer is not as expected")
    }
}
