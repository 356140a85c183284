//! Why an upload ends, and why a connection does.

use url::Url;

/// Why an upload cannot go on. Rows below the position called `stored` are durable all the same.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The hub does not answer, or answers that it cannot store rows now; trying later may help.
    #[error("the hub at {hub} does not answer: {reason}; start it with `rovicli up`")]
    Away {
        /// The hub's URL.
        hub: Url,
        /// What happened.
        reason: String,
    },
    /// The hub will not take these rows, however often they are sent.
    #[error("the hub refused the upload: {reason}")]
    Refused {
        /// The hub's reason.
        reason: String,
    },
    /// Something else than a hub answers there.
    #[error("{hub} does not answer as a hub does: {reason}; see --url")]
    NotAHub {
        /// The URL.
        hub: Url,
        /// What was wrong.
        reason: String,
    },
    /// The hub reports a defect of its own.
    #[error("the hub reports a defect: {reason}; its log has the cause")]
    Defect {
        /// The hub's words.
        reason: String,
    },
    /// Rows hold a value that msgpack cannot carry.
    #[error("rows cannot be encoded")]
    Encode(#[source] rmp_serde::encode::Error),
}

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum Broken {
    /// Connecting again may help.
    Lost(String),
    /// Connecting again cannot help.
    Refused(String),
    /// The other side is no hub.
    NotAHub(String),
    /// The hub has a defect.
    Defect(String),
}

impl Broken {
    /// Turns the end of a connection into the end of the upload.
    pub(super) fn giving_up(self, hub: &Url) -> UploadError {
        let hub = hub.clone();
        match self {
            Self::Lost(reason) => UploadError::Away { hub, reason },
            Self::Refused(reason) => UploadError::Refused { reason },
            Self::NotAHub(reason) => UploadError::NotAHub { hub, reason },
            Self::Defect(reason) => UploadError::Defect { reason },
        }
    }

    /// Reads a close frame of the hub.
    pub(super) fn by_close(code: u16, reason: &str) -> Self {
        let said = |default: &str| match reason {
            "" => default.to_owned(),
            reason => reason.to_owned(),
        };
        match code {
            1007 => Self::Refused(said("a frame cannot be decoded")),
            1008 => Self::Refused(said("the session or a limit does not allow it")),
            1009 => Self::Refused(said("a frame is larger than the hub takes")),
            4401 => Self::Refused(said("the token does not count any more")),
            1011 => Self::Defect(said("no reason given")),
            1012 => Self::Lost(said("the hub stops")),
            1013 => Self::Lost(said("rows cannot be stored now")),
            1000 => Self::Lost(said("the hub closed the connection")),
            code => Self::Lost(format!(
                "the hub closed the connection with {code} {reason}"
            )),
        }
    }

    /// Reads why a connection could not be made or broke.
    pub(super) fn by_socket(error: tungstenite::Error) -> Self {
        use tungstenite::Error;
        if let Some(what_to_do) = rovi_common::tls::advice(&error) {
            // Connecting again shows the same certificate.
            return Self::NotAHub(what_to_do);
        }
        match error {
            Error::Http(response) => {
                let body = response.body().as_deref().unwrap_or_default();
                let detail = crate::hub::problem_text(response.status().as_u16(), body);
                match response.status().as_u16() {
                    404 => Self::NotAHub(detail),
                    400..=499 => Self::Refused(detail),
                    _ => Self::Lost(detail),
                }
            }
            Error::Io(error) => Self::Lost(error.to_string()),
            Error::ConnectionClosed | Error::AlreadyClosed => {
                Self::Lost("the connection was closed".to_owned())
            }
            Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
                Self::Lost("the connection broke".to_owned())
            }
            Error::Url(error) => Self::NotAHub(error.to_string()),
            error => Self::NotAHub(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_closes_that_sending_again_can_heal_are_taken_for_lost() {
        for code in [1001, 1006, 1012, 1013] {
            assert!(
                matches!(Broken::by_close(code, ""), Broken::Lost(_)),
                "{code}"
            );
        }
        for code in [1007, 1008, 1009, 4401] {
            assert!(
                matches!(Broken::by_close(code, ""), Broken::Refused(_)),
                "{code}"
            );
        }
        assert!(matches!(Broken::by_close(1011, ""), Broken::Defect(_)));
    }

    #[test]
    fn the_reason_of_the_hub_is_told() {
        let error = Broken::by_close(1007, "row 17 is no map");
        let hub = "http://127.0.0.1:8000".parse().unwrap();
        let text = error.giving_up(&hub).to_string();
        assert_eq!(text, "the hub refused the upload: row 17 is no map");
    }
}
