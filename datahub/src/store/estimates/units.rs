//! Quantities and units of columns, for their comments.

/// Tells quantity and unit of a column whose parameter is known.
pub(super) fn unit_comment(column: &str) -> Option<&'static str> {
    let (parameter, is_deviation) = match column.strip_suffix("__std") {
        Some(parameter) => (parameter, true),
        None => (column, false),
    };
    let parameter = parameter.trim_end_matches(|c: char| c.is_ascii_digit());
    let last_two = || parameter.rsplit("__").nth(1);
    let (mean, deviation) = match parameter {
        "soc" | "ce" | "h0__gamma" => UNIT_ONE,
        "hyst" | "innovation" | "h0__base_values" | "ocv__ocv_ref__base_values" => UNIT_VOLT,
        "q" => UNIT_COULOMB,
        "i_rc" => UNIT_AMPERE,
        "q_t__base_values" => UNIT_AMPERE_HOUR,
        "ocv__ocv_ent__base_values" => UNIT_VOLT_PER_KELVIN,
        "ocv__reference_temperature" => UNIT_CELSIUS,
        "r0__base_values" => UNIT_OHM,
        "state_of_health" => UNIT_HEALTH,
        "equivalent_full_cycles" => {
            return Some(" IS 'Charge in and out over twice the nominal capacity, without unit.'");
        }
        "energy_throughput" => return Some(" IS 'Energy in and out so far, in W·h.'"),
        "trust" => return Some(" IS '0 healthy, 1 suspect, 2 diverged.'"),
        _ if parameter.ends_with("__temperature_dependence_factor") => UNIT_PER_KELVIN,
        _ if parameter.starts_with("rc_elements__") && last_two() == Some("r") => UNIT_OHM,
        _ if parameter.starts_with("rc_elements__") && last_two() == Some("c") => UNIT_FARAD,
        _ => return None,
    };
    Some(if is_deviation { deviation } else { mean })
}

type UnitComment = (&'static str, &'static str);
const UNIT_ONE: UnitComment = (
    " IS 'Mean, without unit.'",
    " IS 'Standard deviation, without unit.'",
);
const UNIT_HEALTH: UnitComment = (
    " IS 'Capacity over the nominal one, without unit.'",
    " IS 'Standard deviation, without unit.'",
);
const UNIT_VOLT: UnitComment = (" IS 'Mean, in V.'", " IS 'Standard deviation, in V.'");
const UNIT_COULOMB: UnitComment = (" IS 'Mean, in C.'", " IS 'Standard deviation, in C.'");
const UNIT_AMPERE: UnitComment = (" IS 'Mean, in A.'", " IS 'Standard deviation, in A.'");
const UNIT_AMPERE_HOUR: UnitComment = (" IS 'Mean, in A·h.'", " IS 'Standard deviation, in A·h.'");
const UNIT_VOLT_PER_KELVIN: UnitComment =
    (" IS 'Mean, in V/°C.'", " IS 'Standard deviation, in V/°C.'");
const UNIT_CELSIUS: UnitComment = (" IS 'Mean, in °C.'", " IS 'Standard deviation, in °C.'");
const UNIT_OHM: UnitComment = (" IS 'Mean, in ohm.'", " IS 'Standard deviation, in ohm.'");
const UNIT_PER_KELVIN: UnitComment = (" IS 'Mean, in 1/°C.'", " IS 'Standard deviation, in 1/°C.'");
const UNIT_FARAD: UnitComment = (" IS 'Mean, in F.'", " IS 'Standard deviation, in F.'");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_known_parameters_are_told() {
        for (column, unit) in [
            ("soc", "without unit"),
            ("q_t__base_values", "A·h"),
            ("r0__base_values3__std", "ohm"),
            ("rc_elements__0__c__base_values", "in F"),
            ("rc_elements__1__r__base_values__std", "ohm"),
            ("i_rc", "in A"),
            ("i_rc1", "in A"),
            ("innovation__std", "in V"),
            ("state_of_health", "over the nominal"),
            ("state_of_health__std", "deviation"),
            ("equivalent_full_cycles", "without unit"),
            ("energy_throughput", "W·h"),
            ("trust", "2 diverged"),
        ] {
            let comment = unit_comment(column).unwrap_or_default();
            assert!(comment.contains(unit), "{column}: {comment}");
        }
        assert!(unit_comment("soc__std").unwrap().contains("deviation"));
        assert_eq!(unit_comment("something"), None);
    }
}
