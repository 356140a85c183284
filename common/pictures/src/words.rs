//! Columns of estimates in the words of people: `rc_elements__0__r__base_values`.

/// The first words of a column's name, in the order in which they are looked at: what they mean, and the unit.
const WORDS: [(&[&str], &str, &str); 9] = [
    (&["soc"], "state of charge", ""),
    (&["state_of_health"], "state of health", ""),
    (&["q_t"], "capacity", "A·h"),
    (&["r0"], "series resistance", "Ω"),
    (&["rc_elements", "r"], "resistance of RC pair", "Ω"),
    (&["rc_elements", "c"], "capacitance of RC pair", "F"),
    (
        &["innovation"],
        "innovation: measured less predicted voltage",
        "V",
    ),
    (&["i_rc"], "current of RC pair", "A"),
    (&["hyst"], "hysteresis", "V"),
];
/// What each parameter's values are called; the number behind it is a node's, counted from 0.
const VALUES: &str = "base_values";

/// A name taken apart: its words, which of several parts it is of, and which of several values.
struct Parts<'a> {
    words: Vec<&'a str>,
    part: Option<u32>,
    node: Option<u32>,
}

fn parts(column: &str) -> Parts<'_> {
    let number = |text: &str| text.parse::<u32>().ok()?.checked_add(1);
    if let Some(pair) = column.strip_prefix("i_rc") {
        return Parts {
            words: vec!["i_rc"],
            part: number(pair),
            node: None,
        };
    }
    let all = || column.split("__");
    Parts {
        words: all()
            .filter(|word| number(word).is_none() && !word.starts_with(VALUES))
            .collect(),
        part: all().find_map(number),
        node: all().find_map(|word| number(word.strip_prefix(VALUES)?)),
    }
}

fn place(column: &str) -> Option<usize> {
    let words = parts(column).words;
    WORDS.iter().position(|(known, ..)| *known == words)
}

/// Orders columns of estimates: first what tells most of a battery. What is not known comes last.
pub fn estimate_rank(column: &str) -> usize {
    place(column).unwrap_or(WORDS.len())
}

/// Names a column of estimates, with its unit.
pub fn estimate_label(column: &str) -> String {
    let Some((_, meaning, unit)) = place(column).and_then(|place| WORDS.get(place)) else {
        return column.to_owned();
    };
    let Parts { part, node, .. } = parts(column);
    let part = part.map_or_else(String::new, |part| format!(" {part}"));
    let node = node.map_or_else(String::new, |node| format!(", node {node}"));
    let unit = match *unit {
        "" => String::new(),
        unit => format!(" ({unit})"),
    };
    format!("{meaning}{part}{node}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_names_that_need_no_manual() {
        for (column, label) in [
            ("soc", "state of charge"),
            ("q_t__base_values", "capacity (A·h)"),
            ("r0__base_values", "series resistance (Ω)"),
            ("r0__base_values2", "series resistance, node 3 (Ω)"),
            ("i_rc1", "current of RC pair 2 (A)"),
            (
                "rc_elements__0__r__base_values",
                "resistance of RC pair 1 (Ω)",
            ),
            ("mine", "mine"),
            (
                "r0__temperature_dependence_factor",
                "r0__temperature_dependence_factor",
            ),
        ] {
            assert_eq!(estimate_label(column), label, "{column}");
        }
    }

    #[test]
    fn what_tells_most_of_a_battery_comes_first() {
        let mut columns = ["hyst", "mine", "q_t__base_values", "state_of_health", "soc"];
        columns.sort_by_key(|column| estimate_rank(column));
        assert_eq!(
            columns,
            ["soc", "state_of_health", "q_t__base_values", "hyst", "mine"]
        );
    }
}
