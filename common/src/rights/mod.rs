//! Who may say and hear what on the bus: the one place from which the NATS server's settings are
//! made ([`users`]), and what each party proves itself by ([`seed`]).
//!
//! A subject, stream or bucket without a line here is closed to everybody but the administrator as
//! soon as NATS asks for credentials, and fails the tests that run with them: add its line below.
//!
//! All parties are users of one account: streams belong to an account, and what is not in these
//! tables the server refuses to everybody alike.

pub mod seed;
mod table;
pub mod users;

use std::{fmt, str::FromStr};

use crate::auth::role::Word;

pub use table::{STREAMS, SUBJECTS, StreamLine, SubjectLine, Use, Who};

/// Somebody who connects to NATS.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Party {
    /// Every hub.
    Hub,
    /// Every twin.
    Twin,
    /// Who hears everything and gives commands.
    Operator,
    /// Who may do everything, such as mending streams by hand.
    Admin,
    /// Who hears the states of one tenant's batteries.
    Reader(Word),
}

impl Party {
    /// Those that every installation has.
    pub const FIXED: [Self; 4] = [Self::Hub, Self::Twin, Self::Operator, Self::Admin];

    /// Returns what NATS lets them do.
    pub fn permissions(&self) -> Permissions {
        let (who, tenant) = match self {
            Self::Hub => (Who::Hub, None),
            Self::Twin => (Who::Twin, None),
            Self::Operator => (Who::Operator, None),
            Self::Reader(tenant) => (Who::Reader, Some(tenant)),
            Self::Admin => return Permissions::everything(),
        };
        let mut permissions = table::permissions(who, tenant.map_or("*", Word::as_str));
        // A reader asks nothing, so nothing is answered.
        if *self == Self::Operator || permissions.answers {
            permissions
                .subscribe
                .push(format!("{}.>", inbox_prefix(&self.to_string())));
        }
        permissions
    }
}

/// Also the name of the party's seed file, and what the inboxes of its answers begin with.
impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hub => f.write_str("datahub"),
            Self::Twin => f.write_str("twin"),
            Self::Operator => f.write_str("operator"),
            Self::Admin => f.write_str("admin"),
            Self::Reader(tenant) => write!(f, "reader-{tenant}"),
        }
    }
}

impl FromStr for Party {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(tenant) = text.strip_prefix("reader-") {
            return tenant.parse().map(Self::Reader);
        }
        let known = Self::FIXED.into_iter().find(|one| one.to_string() == text);
        known.ok_or_else(|| {
            format!(
                "{text:?} is nobody on the bus: datahub, twin, operator, admin, reader-<tenant>"
            )
        })
    }
}

/// What the inboxes of a connection begin with, so that nobody hears the answers of others.
///
/// What stands behind a space in the name of a connection says what it is for, not who it is.
pub fn inbox_prefix(name: &str) -> String {
    let who = name.split(' ').next().unwrap_or_default();
    format!("_INBOX_{who}")
}

/// Subjects as NATS permits them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permissions {
    /// What may be published; nothing if empty.
    pub publish: Vec<String>,
    /// What may be subscribed to; nothing if empty.
    pub subscribe: Vec<String>,
    /// Whether requests may be answered, each once, wherever the answer goes.
    pub answers: bool,
}

impl Permissions {
    fn everything() -> Self {
        Self {
            publish: vec![">".to_owned()],
            subscribe: vec![">".to_owned()],
            answers: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_party_is_read_as_it_is_written() {
        let reader = Party::Reader("acme".parse().unwrap());
        for party in Party::FIXED.into_iter().chain([reader]) {
            assert_eq!(party.to_string().parse(), Ok(party));
        }
        assert!("reader-a-b".parse::<Party>().is_err());
        assert!("hub".parse::<Party>().is_err());
    }

    #[test]
    fn nobody_hears_the_answers_of_others_but_the_administrator() {
        for party in [Party::Hub, Party::Twin, Party::Operator] {
            let own = format!("{}.>", inbox_prefix(&party.to_string()));
            let heard = party.permissions().subscribe;
            let inboxes: Vec<_> = heard.iter().filter(|one| one.contains("INBOX")).collect();
            assert_eq!(inboxes, [&own]);
        }
    }

    #[test]
    fn a_reader_hears_one_tenant_and_says_nothing() {
        let permissions = Party::Reader("acme".parse().unwrap()).permissions();
        assert_eq!(permissions.subscribe, ["rovi.tenant.acme.state.*"]);
        assert!(permissions.publish.is_empty() && !permissions.answers);
    }

    #[test]
    fn only_the_hub_sends_rows_and_only_the_twin_estimates() {
        let may = |party: Party, subject: &str| {
            let permissions = party.permissions();
            permissions.publish.iter().any(|one| one == subject)
        };
        assert!(may(Party::Hub, "rovi.rows.*") && !may(Party::Twin, "rovi.rows.*"));
        let estimates = "rovi.estimates.*.*";
        assert!(may(Party::Twin, estimates) && !may(Party::Hub, estimates));
        for party in [Party::Hub, Party::Twin, Party::Operator] {
            let published = party.permissions().publish;
            let deletes = |one: &&String| one.contains("STREAM.DELETE") || one.starts_with('>');
            assert_eq!(published.iter().find(deletes), None, "{party}");
        }
    }
}
