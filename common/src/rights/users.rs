//! The part of the NATS server's settings that says who may do what. It holds no secrets.

use std::fmt::Write;

use super::{Party, Permissions};

/// How long a request may wait for its answer.
const ANSWER_WITHIN: &str = "5m";

/// Writes the settings, for a server's own file to include: `include ./users.conf`.
///
/// Users are of the global account, in which streams lie that were made before anybody was asked
/// for credentials.
pub fn settings(users: &[(Party, String)]) -> String {
    let mut text =
        "# Who may do what on the bus: `rovicli nats credentials` writes this file anew.\n\
                    authorization {\n  users: [\n"
            .to_owned();
    for (party, public_key) in users {
        let user = user(party, public_key);
        // Writing to a string does not fail.
        let _written = writeln!(text, "{user}");
    }
    text + "  ]\n}\n"
}

fn user(party: &Party, public_key: &str) -> String {
    let Permissions {
        publish,
        subscribe,
        answers,
    } = party.permissions();
    let (publish, subscribe) = (allowed(&publish), allowed(&subscribe));
    let answers = if answers {
        format!("\n      allow_responses: {{ max: 1, expires: \"{ANSWER_WITHIN}\" }}")
    } else {
        String::new()
    };
    format!(
        "    # {party}\n    {{ nkey: {public_key}, permissions: {{\n      publish: {publish}\n      \
         subscribe: {subscribe}{answers}\n    }} }}"
    )
}

fn allowed(subjects: &[String]) -> String {
    if subjects.is_empty() {
        return "{ deny: \">\" }".to_owned();
    }
    let subjects: Vec<String> = subjects
        .iter()
        .map(|subject| format!("{subject:?}"))
        .collect();
    format!(
        "{{ allow: [\n        {}\n      ] }}",
        subjects.join("\n        ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_nothing_is_denied_everything() {
        let reader = Party::Reader("acme".parse().unwrap());
        let text = settings(&[(reader, "UKEY".to_owned())]);
        assert!(text.contains("publish: { deny: \">\" }"), "{text}");
        assert!(text.contains("# reader-acme\n    { nkey: UKEY,"), "{text}");
    }
}
