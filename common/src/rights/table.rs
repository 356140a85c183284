//! The tables: subjects, streams and buckets, and who does what with each.

use super::Permissions;
use crate::subjects::{
    ACCESS_BUCKET, ALERT_RULES_BUCKET, ALERTS_BUCKET, AUDIT, BACKTESTS_BUCKET, CHECKPOINTS_BUCKET,
    CHECKPOINTS_STORE, CONTROL, CORRECTIONS_BUCKET, DELETE_ALERT_RULE, DEREGISTER,
    ESTIMATES_STREAM, ESTIMATORS_BUCKET, EVENTS_STREAM, FILES_STORE, PUT_ALERT_RULE, REGISTER,
    ROWS_STREAM, SHARES_BUCKET, STATE_STREAM,
};

/// A kind of party.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Hubs.
    Hub,
    /// Twins.
    Twin,
    /// Operators.
    Operator,
    /// Readers of a tenant.
    Reader,
}

use Who::{Hub, Operator, Reader, Twin};

/// Subjects of core NATS, who publishes them, and who subscribes to them.
///
/// `{tenant}` is the reader's own tenant, and any tenant for others.
pub type SubjectLine = (&'static str, &'static [Who], &'static [Who]);

/// The subjects.
pub const SUBJECTS: &[SubjectLine] = &[
    ("rovi.rows.*", &[Hub], &[Operator]),
    ("rovi.estimates.*.*", &[Twin], &[Operator]),
    // The hub ends the states of deleted batteries.
    ("rovi.state.*", &[Hub, Twin], &[Operator]),
    ("rovi.event.*", &[Twin], &[Operator]),
    ("rovi.tenant.{tenant}.state.*", &[Twin], &[Reader, Operator]),
    ("rovi.service.datahub.*", &[Hub], &[]),
    ("rovi.service.twin.*", &[Twin], &[]),
    ("rovi.service.*.*", &[], &[Hub, Twin, Operator]),
    // Twins ask for those who asked them over HTTP, after asking who they are.
    (REGISTER, &[Twin, Operator], &[Hub]),
    (DEREGISTER, &[Twin, Operator], &[Hub]),
    (CONTROL, &[Twin, Operator], &[Hub]),
    (PUT_ALERT_RULE, &[Twin, Operator], &[Hub]),
    (DELETE_ALERT_RULE, &[Twin, Operator], &[Hub]),
    (AUDIT, &[Twin], &[Hub]),
    // Commands.
    ("rovi.twin.>", &[Twin, Operator], &[Twin]),
    // What twins ask each other.
    ("rovi.peer.*", &[Twin], &[Twin]),
    // How much is stored, asked before each bucket and stream is made.
    ("$JS.API.INFO", &[Hub, Twin, Operator], &[]),
];

/// What one does with a stream; whoever does any of these may look at its state, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Makes it where it is missing.
    Make,
    /// Changes its limits.
    Limit,
    /// Reads single messages.
    Look,
    /// Reads and follows it by consumers.
    Read,
    /// Purges subjects of it.
    Purge,
    /// Writes keys of a bucket or objects of a store; what streams take in are [`SUBJECTS`].
    Put,
}

use Use::{Limit, Look, Make, Purge, Put, Read};

/// The name of a stream, bucket (`KV_…`) or object store (`OBJ_…`), and who does what with it.
pub type StreamLine = (Kind, &'static str, &'static [(Who, &'static [Use])]);

/// What a line of [`STREAMS`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A stream.
    Stream,
    /// A key-value bucket.
    Bucket,
    /// An object store.
    Objects,
}

const OWNS: &[Use] = &[Make, Look, Read, Put];
const FOLLOWS: &[Use] = &[Look, Read];

/// The streams, buckets and object stores.
pub const STREAMS: &[StreamLine] = &[
    (
        Kind::Stream,
        ROWS_STREAM,
        &[
            (Hub, &[Make, Limit, Look, Purge]),
            (Twin, FOLLOWS),
            (Operator, FOLLOWS),
        ],
    ),
    (
        Kind::Stream,
        ESTIMATES_STREAM,
        &[
            (Hub, &[Make, Limit, Look, Read, Purge]),
            (Twin, &[Make, Look, Read]),
            (Operator, FOLLOWS),
        ],
    ),
    (
        Kind::Stream,
        STATE_STREAM,
        &[
            (Hub, &[Look]),
            (Twin, &[Make, Look, Read]),
            (Operator, FOLLOWS),
        ],
    ),
    (
        Kind::Stream,
        EVENTS_STREAM,
        &[(Twin, &[Make, Look, Read]), (Operator, FOLLOWS)],
    ),
    (
        Kind::Bucket,
        ESTIMATORS_BUCKET,
        &[(Hub, OWNS), (Twin, FOLLOWS), (Operator, FOLLOWS)],
    ),
    (
        Kind::Bucket,
        ALERT_RULES_BUCKET,
        &[(Hub, OWNS), (Twin, FOLLOWS), (Operator, FOLLOWS)],
    ),
    (Kind::Bucket, ACCESS_BUCKET, &[(Hub, OWNS), (Twin, FOLLOWS)]),
    // Twins open it where no hub has made it yet, and write nothing.
    (
        Kind::Bucket,
        CORRECTIONS_BUCKET,
        &[(Hub, OWNS), (Twin, &[Make, Look, Read])],
    ),
    (
        Kind::Bucket,
        ALERTS_BUCKET,
        &[(Twin, OWNS), (Operator, FOLLOWS)],
    ),
    (
        Kind::Bucket,
        BACKTESTS_BUCKET,
        &[(Twin, OWNS), (Operator, FOLLOWS)],
    ),
    (Kind::Bucket, CHECKPOINTS_BUCKET, &[(Twin, OWNS)]),
    (
        Kind::Bucket,
        SHARES_BUCKET,
        &[(Twin, OWNS), (Operator, FOLLOWS)],
    ),
    // Twins put the files of a script there before they ask the hub to register it.
    (
        Kind::Objects,
        FILES_STORE,
        &[
            (Hub, &[Make, Look, Read, Put, Purge]),
            (Twin, &[Make, Look, Read, Put, Purge]),
        ],
    ),
    (
        Kind::Objects,
        CHECKPOINTS_STORE,
        &[(Twin, &[Make, Look, Read, Put, Purge])],
    ),
];

/// Collects what the tables say of one kind of party.
pub(super) fn permissions(who: Who, tenant: &str) -> Permissions {
    let mut permissions = Permissions::default();
    for (subject, publish, subscribe) in SUBJECTS {
        let subject = subject.replace("{tenant}", tenant);
        if publish.contains(&who) {
            permissions.publish.push(subject.clone());
        }
        if subscribe.contains(&who) {
            permissions.subscribe.push(subject);
        }
    }
    for (kind, name, users) in STREAMS {
        for (_, uses) in users.iter().filter(|(user, _)| *user == who) {
            permissions.publish.extend(requests(*kind, name, uses));
        }
    }
    permissions.answers = matches!(who, Hub | Twin);
    permissions
}

/// Returns the requests of `JetStream`'s API, and the keys, that uses of a stream need.
fn requests(kind: Kind, name: &str, uses: &[Use]) -> Vec<String> {
    let stream = match kind {
        Kind::Stream => name.to_owned(),
        Kind::Bucket => format!("KV_{name}"),
        Kind::Objects => format!("OBJ_{name}"),
    };
    let mut subjects = vec![format!("$JS.API.STREAM.INFO.{stream}")];
    for one in uses {
        match one {
            Make => subjects.push(format!("$JS.API.STREAM.CREATE.{stream}")),
            Limit => subjects.push(format!("$JS.API.STREAM.UPDATE.{stream}")),
            Purge => subjects.push(format!("$JS.API.STREAM.PURGE.{stream}")),
            Look => subjects.extend([
                format!("$JS.API.STREAM.MSG.GET.{stream}"),
                format!("$JS.API.DIRECT.GET.{stream}"),
                format!("$JS.API.DIRECT.GET.{stream}.>"),
            ]),
            Read => subjects.extend(consumers(&stream)),
            Put => subjects.push(match kind {
                Kind::Objects => format!("$O.{name}.>"),
                _ => format!("$KV.{name}.>"),
            }),
        }
    }
    subjects
}

/// Returns what making and following consumers needs, acknowledgements and flow control included.
fn consumers(stream: &str) -> [String; 8] {
    [
        format!("$JS.API.CONSUMER.CREATE.{stream}"),
        format!("$JS.API.CONSUMER.CREATE.{stream}.>"),
        format!("$JS.API.CONSUMER.INFO.{stream}.*"),
        format!("$JS.API.CONSUMER.DELETE.{stream}.*"),
        format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.*"),
        format!("$JS.API.CONSUMER.UNPIN.{stream}.*"),
        format!("$JS.ACK.{stream}.>"),
        format!("$JS.FC.{stream}.>"),
    ]
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::subjects;

    /// Writes the tables for people, as `docs/SECURITY.md` has them.
    fn markdown() -> String {
        let mut text = "| subject | published by | heard by |\n|---|---|---|\n".to_owned();
        for (subject, publish, subscribe) in SUBJECTS {
            let (publish, subscribe) = (list(publish), list(subscribe));
            line(
                &mut text,
                format_args!("| `{subject}` | {publish} | {subscribe} |"),
            );
        }
        text += "\n| stream, bucket, store | used by |\n|---|---|\n";
        for (_, name, users) in STREAMS {
            let users: Vec<String> = users
                .iter()
                .map(|(who, uses)| {
                    let uses: Vec<_> = uses
                        .iter()
                        .map(|one| format!("{one:?}").to_lowercase())
                        .collect();
                    format!("{}: {}", list(&[*who]), uses.join(", "))
                })
                .collect();
            line(
                &mut text,
                format_args!("| `{name}` | {} |", users.join("; ")),
            );
        }
        text
    }

    fn list(parties: &[Who]) -> String {
        let names: Vec<_> = parties
            .iter()
            .map(|who| format!("{who:?}").to_lowercase())
            .collect();
        names.join(", ")
    }

    fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _written = writeln!(text, "{line}");
    }

    /// Whether a subject, which may have wildcards itself, is among what a pattern names.
    fn names(pattern: &str, subject: &str) -> bool {
        let mut wanted = subject.split('.');
        for token in pattern.split('.') {
            match (token, wanted.next()) {
                (">", Some(_)) => return true,
                ("*", Some(found)) if found != ">" => {}
                (token, Some(found)) if token == found => {}
                _ => return false,
            }
        }
        wanted.next().is_none()
    }

    #[test]
    fn what_services_subscribe_to_and_publish_has_a_line() {
        let battery = "b7".parse().unwrap();
        let built = [
            subjects::rows_of(&battery),
            subjects::estimates_of(&battery, &"e".parse().unwrap()),
            subjects::state_of(&battery),
            subjects::event_of(&battery),
            subjects::tenant_state_of(&"acme".parse().unwrap(), &battery),
            subjects::heartbeat_of("datahub", "x"),
            subjects::heartbeat_of("twin", "x"),
            subjects::all_heartbeats(),
            subjects::twin("x"),
            format!("{}.>", subjects::TWIN_REQUESTS),
        ];
        for subject in built {
            let has_line = SUBJECTS
                .iter()
                .any(|(pattern, ..)| names(&pattern.replace("{tenant}", "*"), &subject));
            assert!(has_line, "{subject} has no line in the table of subjects");
        }
    }

    #[test]
    fn the_document_has_the_tables_of_the_code() {
        let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/SECURITY.md");
        let document = std::fs::read_to_string(document).unwrap();
        let table = markdown();
        assert!(
            document.contains(&table),
            "docs/SECURITY.md should have:\n{table}"
        );
    }
}
