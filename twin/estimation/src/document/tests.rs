use serde_json::json;

use super::filter::{DEFAULT_NOISE, UKF_KEYS};
use super::*;

/// Two transients, capacity and resistance estimated.
fn good() -> Value {
    json!({
        "kind": "joint",
        "asoh": {
            "updatable": ["r0", "q_t"],
            "q_t": {"updatable": ["base_values"], "base_values": [[2.0]]},
            "ocv": {"ocv_ref": {"base_values": [[3.0, 3.6, 4.2]]}},
            "r0": {"updatable": ["base_values"], "base_values": [[0.05]]},
            "rc_elements": [],
        },
        "initial_transients": {"soc": [[0.5]], "q0": null, "i_rc": [[]], "hyst": [[0.0]]},
        "covariance_transient": [[0.01, 0.0], [0.0, 1e-6]],
        "covariance_asoh": [[0.01, 0.0], [0.0, 1e-6]],
    })
}

fn set(path: &str, value: Value) -> Value {
    let mut document = good();
    *document
        .pointer_mut(path)
        .unwrap_or_else(|| panic!("no {path}")) = value;
    document
}

fn with(path: &str, key: &str, value: Value) -> Value {
    let mut document = good();
    document.pointer_mut(path).unwrap()[key] = value;
    document
}

fn refusal(document: &Value) -> String {
    Document::from_json(&document.to_string())
        .unwrap_err()
        .to_string()
}

#[test]
fn a_good_document_has_no_warnings_and_its_states_in_declared_order() {
    let (document, warnings) = Document::from_json(&good().to_string()).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(
        document.state_names(),
        ["soc", "hyst", "q_t.base_values", "r0.base_values"]
    );
    assert_eq!(document.initial_mean(), [0.5, 0.0, 2.0, 0.05]);
    assert_eq!(document.capacity_index(), Some(2));
    assert_eq!(document.every(), 1);
}

#[test]
fn plain_numbers_and_flat_lists_are_as_good_as_batches() {
    let mut plain = good();
    plain["asoh"]["q_t"]["base_values"] = json!(2.0);
    plain["asoh"]["r0"]["base_values"] = json!([0.05]);
    plain["asoh"]["ocv"]["ocv_ref"]["base_values"] = json!([3.0, 3.6, 4.2]);
    plain["initial_transients"] = json!({"soc": 0.5});
    let (document, _) = Document::from_json(&plain.to_string()).unwrap();
    assert_eq!(document.initial_mean(), [0.5, 0.0, 2.0, 0.05]);
}

#[test]
fn every_knot_of_a_marked_curve_is_a_state_and_names_count_from_zero() {
    let mut document = good();
    document["asoh"]["r0"]["base_values"] = json!([0.05, 0.04]);
    document["covariance_asoh"] = json!([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]);
    let (document, _) = Document::from_json(&document.to_string()).unwrap();
    assert_eq!(
        document.state_names()[2..],
        ["q_t.base_values", "r0.base_values[0]", "r0.base_values[1]"]
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table: one line for each mistake")]
fn refusals_name_the_field_and_what_to_do() {
    let cases = [
        (
            set("/covariance_asoh", json!([[1, 0, 0], [0, 1, 0], [0, 0, 1]])),
            "covariance_asoh: expected 2x2 for [q_t.base_values, r0.base_values], got 3x3",
        ),
        (
            set("/covariance_transient", json!([[0.01, 0.001], [0.0, 1e-6]])),
            "covariance_transient: not symmetric: 0 for (hyst, soc) but 0.001 for (soc, hyst)",
        ),
        (
            set("/covariance_transient", json!([[0.01, 0.0], [0.0, 0.0]])),
            "covariance_transient: not positive definite: the variance of hyst is 0; give a",
        ),
        (
            set("/covariance_transient", json!([[1.0, 2.0], [2.0, 1.0]])),
            "covariance_transient: not positive definite: some covariance is too large",
        ),
        (
            with("", "sensor_noise", json!([[0.0]])),
            "sensor_noise: not positive definite: the variance of voltage is 0",
        ),
        (
            with("/asoh/ocv/ocv_ref", "interpolation_style", json!("akima")),
            "asoh.ocv.ocv_ref.interpolation_style: unknown style \"akima\"; known are linear",
        ),
        (
            with("/asoh/ocv/ocv_ref", "interpolation_style", json!("cubic")),
            "asoh.ocv.ocv_ref.interpolation_style: this style needs at least 4 values, got 3",
        ),
        (
            with("/asoh/ocv/ocv_ref", "soc_pinpoints", json!([0.0, 1.0])),
            "asoh.ocv.ocv_ref.soc_pinpoints: expected 3 pinpoints, one for each of base_values",
        ),
        (
            with("/asoh/ocv/ocv_ref", "soc_pinpoints", json!([0.0, 1.0, 0.0])),
            "asoh.ocv.ocv_ref.soc_pinpoints: the pinpoint 0 repeats",
        ),
        (
            with("", "ukf", json!({"alpha_param": 1.5})),
            "ukf.alpha_param: must lie in [0.001, 1], got 1.5",
        ),
        (
            with("", "ukf", json!({"kappa_param": "auto"})),
            "ukf.kappa_param: write a number or \"automatic\"",
        ),
        (
            with("", "ukf", json!({"kappa_param": -9.0})),
            "ukf.kappa_param: must be above -9 (-(2n + 1)), got -9",
        ),
        (
            with("", "ukf", json!({"beta_param": -1.0})),
            "ukf.beta_param: must be at least 0",
        ),
        (
            set("/asoh/updatable", json!(["q_t", "resistance"])),
            "asoh.updatable.1: \"resistance\" is not a parameter that can be estimated here",
        ),
        (
            set("/asoh/updatable", json!(["c0"])),
            "asoh.updatable.0: c0 cannot be estimated; take it off this list",
        ),
        (
            with("/asoh/r0", "updatable", json!(["soc_pinpoints"])),
            "asoh.r0.updatable.0: \"soc_pinpoints\" is not a parameter that can be estimated",
        ),
        (
            with("", "state_names", json!([])),
            "state_names: unknown key; known here are kind",
        ),
        (
            with("/asoh/r0", "gamma", json!(1)),
            "asoh.r0.gamma: unknown key",
        ),
        (
            with(
                "/asoh",
                "c0",
                json!({"updatable": ["base_values"], "base_values": 1.0}),
            ),
            "asoh.c0.updatable: c0 cannot be estimated; leave this list empty",
        ),
        (
            with("/initial_transients", "q0", json!(0.0)),
            "initial_transients.q0: the circuit has no c0",
        ),
        (
            set("/initial_transients/i_rc", json!([0.0])),
            "initial_transients.i_rc: expected 0 currents, one for each of rc_elements, got 1",
        ),
        (
            set("/asoh/q_t/base_values", json!([[2.0], [2.1]])),
            "asoh.q_t.base_values: holds 2 batches; an estimator takes one",
        ),
        (
            set("/asoh/q_t/base_values", json!(0.0)),
            "asoh.q_t.base_values: the capacity must be",
        ),
        (
            set("/asoh/q_t/base_values", json!("two")),
            "asoh.q_t.base_values: expected a finite number, got the text \"two\"",
        ),
        (
            with("", "every", json!(0)),
            "every: expected a positive integer, got 0",
        ),
        (
            with("", "compat", json!("moirae-0.4")),
            "compat: unknown version \"moirae-0.4\"",
        ),
        (
            with("", "current_behavior", json!("cubic")),
            "current_behavior: unknown behavior",
        ),
        (
            set("/kind", json!("single")),
            "kind: unknown kind \"single\"; write \"joint\"",
        ),
        (
            with("", "filter", json!("particle")),
            "filter: unknown filter \"particle\"; write \"ukf\"",
        ),
        (
            with("", "trust", json!({"window": 5})),
            "trust.window: must lie in [20, 100000] rows, got 5",
        ),
        (
            with("", "trust", json!({"on_divergence": "pray"})),
            "trust.on_divergence: unknown policy \"pray\"",
        ),
        (
            with("", "trust", json!({"soc_range": [1.0, 0.0]})),
            "trust.soc_range: expected two numbers, the lower first",
        ),
        (
            with("", "initialise", json!({})),
            "initialise: asks for nothing",
        ),
        (
            with("", "initialise", json!({"rc_pairs": 1})),
            "initialise.rc_pairs: must be 0, or the number of rc_elements in the document (0)",
        ),
        (
            with("", "nominal_capacity", json!(0.0)),
            "nominal_capacity: must be positive (A h)",
        ),
        (
            set("/initial_transients", json!({})),
            "initial_transients.soc: missing; give the",
        ),
        (
            set("/covariance_asoh", Value::Null),
            "covariance_asoh: missing; give a 2x2 matrix",
        ),
    ];
    for (document, expected) in cases {
        let got = refusal(&document);
        assert!(
            got.starts_with(expected),
            "expected {expected:?}, got {got:?}"
        );
    }
}

#[test]
fn a_bare_nan_is_refused_at_its_path() {
    let text = good().to_string().replace("0.05", "NaN");
    let error = Document::from_json(&text).unwrap_err();
    assert_eq!(error.path(), Some("asoh.r0.base_values.0.0"));
    assert_eq!(
        error.to_string(),
        "asoh.r0.base_values.0.0: expected a finite number, got the text \"NaN\""
    );
}

#[test]
fn text_that_is_no_json_is_told_so() {
    assert!(matches!(
        Document::from_json("{"),
        Err(DocumentError::NotJson(_))
    ));
}

#[test]
fn a_reference_temperature_inside_the_ocv_curves_warns_and_nothing_more() {
    let document = with("/asoh/ocv/ocv_ref", "reference_temperature", json!(25.0));
    let (_, warnings) = Document::from_json(&document.to_string()).unwrap();
    assert_eq!(
        warnings.iter().map(Warning::to_string).collect::<Vec<_>>(),
        ["asoh.ocv.ocv_ref.reference_temperature: has no effect; the one of ocv counts"]
    );
}

#[test]
fn a_mark_that_a_level_above_lacks_warns() {
    let mut document = set("/asoh/updatable", json!(["q_t"]));
    document["covariance_asoh"] = json!([[0.01]]);
    let (document, warnings) = Document::from_json(&document.to_string()).unwrap();
    assert_eq!(document.state_names(), ["soc", "hyst", "q_t.base_values"]);
    assert_eq!(warnings[0].path, "asoh.r0.updatable");
}

#[test]
fn half_of_the_process_noise_is_used_unless_moirae_would_not() {
    let mut document = with(
        "",
        "transient_process_noise",
        json!([[0.5, 0.0], [0.0, 0.5]]),
    );
    let (sound, warnings) = Document::from_json(&document.to_string()).unwrap();
    assert_eq!(
        sound.filter().process_noise()[0].to_bits(),
        0.5_f64.to_bits()
    );
    assert_eq!(warnings.len(), 1);
    document["compat"] = json!("moirae-0.3");
    let (moirae, warnings) = Document::from_json(&document.to_string()).unwrap();
    assert_eq!(
        moirae.filter().process_noise()[0].to_bits(),
        DEFAULT_NOISE.to_bits()
    );
    assert!(warnings[0].message.contains("has no effect"));
}

#[test]
fn the_published_schema_names_exactly_the_keys_the_parser_accepts() {
    let schema: Value = serde_json::from_str(schema()).unwrap();
    let parsed: [(&str, &[&str]); 18] = [
        ("", &DOCUMENT_KEYS),
        ("/$defs/asoh", &asoh::ASOH_KEYS),
        ("/$defs/q_t", &asoh::CAPACITY_KEYS),
        ("/$defs/ocv", &asoh::OCV_KEYS),
        ("/$defs/ocv_ref", &asoh::OCV_CURVE_KEYS),
        ("/$defs/ocv_ent", &asoh::OCV_CURVE_KEYS),
        ("/$defs/r0", &asoh::RESISTANCE_KEYS),
        ("/$defs/c0", &asoh::CURVE_KEYS),
        ("/$defs/rc_element", &asoh::RC_KEYS),
        ("/$defs/r", &asoh::RESISTANCE_KEYS),
        ("/$defs/c", &asoh::CURVE_KEYS),
        ("/$defs/h0", &asoh::HYSTERESIS_KEYS),
        ("/$defs/initial_transients", &transients::TRANSIENT_KEYS),
        ("/$defs/initial_inputs", &INPUT_KEYS),
        ("/$defs/ukf", &UKF_KEYS),
        ("/$defs/dual_ukf", &plan::DUAL_UKF_KEYS),
        ("/$defs/trust", &trust::TRUST_KEYS),
        ("/$defs/initialise", &initialise::INITIALISE_KEYS),
    ];
    for (pointer, keys) in parsed {
        let object = schema.pointer(pointer).unwrap();
        let mut published: Vec<&str> = object["properties"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        let mut accepted = keys.to_vec();
        published.sort_unstable();
        accepted.sort_unstable();
        assert_eq!(published, accepted, "at {pointer:?}");
        for (name, property) in object["properties"].as_object().unwrap() {
            let is_told = property.get("description").is_some() || property.get("$ref").is_some();
            assert!(is_told, "{pointer}/{name} has no description");
        }
    }
    let styles: Vec<&str> = crate::interpolation::STYLES
        .iter()
        .map(|(name, _)| *name)
        .collect();
    let published = schema
        .pointer("/$defs/r0/properties/interpolation_style/enum")
        .unwrap();
    assert_eq!(*published, json!(styles));
}

/// The JSON pointers of all values in a document.
fn pointers(value: &Value, path: &str, found: &mut Vec<String>) {
    found.push(path.to_owned());
    match value {
        Value::Object(map) => {
            map.iter()
                .for_each(|(key, inner)| pointers(inner, &format!("{path}/{key}"), found));
        }
        Value::Array(list) => {
            let numbered = list.iter().enumerate();
            numbered.for_each(|(k, inner)| pointers(inner, &format!("{path}/{k}"), found));
        }
        _ => {}
    }
}

#[test]
fn a_mutilated_document_is_refused_or_runs_but_never_panics() {
    let mut whole = good();
    whole["normalize_asoh"] = json!(true);
    whole["asoh"]["rc_elements"] = json!([{"r": {"base_values": 0.01}, "c": {"base_values": 9.0}}]);
    whole["asoh"]["c0"] = json!({"base_values": 1e5});
    whole["initial_transients"] = json!({"soc": 0.5, "q0": 0.0, "i_rc": [0.0], "hyst": 0.0});
    whole["covariance_transient"] = json!([
        [1.0, 0, 0, 0],
        [0, 1.0, 0, 0],
        [0, 0, 1.0, 0],
        [0, 0, 0, 1.0]
    ]);
    whole["ukf"] = json!({"alpha_param": 1.0, "kappa_param": 0.0, "beta_param": 2.0});
    whole["initial_inputs"] = json!({"time": 0.0, "current": 0.0, "temperature": null});
    let mut found = Vec::new();
    pointers(&whole, "", &mut found);
    let odd = [
        json!(null),
        json!(true),
        json!("x"),
        json!([]),
        json!([[]]),
        json!({}),
        json!([1.0, 2.0]),
        json!([[1.0], [2.0]]),
        json!(0),
        json!(-1),
        json!(1e300),
        json!(-1e300),
        json!(1e-300),
    ];
    let mut accepted = 0;
    for pointer in &found {
        for value in &odd {
            let mut document = whole.clone();
            *document.pointer_mut(pointer).unwrap() = value.clone();
            let Ok((document, _)) = Document::from_json(&document.to_string()) else {
                continue;
            };
            accepted += 1;
            let mut estimator = crate::Estimator::new(&document);
            for k in 0..5_u32 {
                let time = f64::from(k);
                let row = crate::Observation {
                    time,
                    current: 1.0,
                    voltage: 3.7,
                    temperature: None,
                };
                // What the filter makes of an absurd cell does not matter here.
                let _outcome = estimator.observe(&row);
            }
        }
    }
    assert!(
        accepted > 100,
        "only {accepted} of the mutilations were accepted"
    );
}

#[test]
fn an_entry_asymmetric_by_rounding_is_mirrored() {
    let document = set(
        "/covariance_transient",
        json!([[0.01, 1e-5], [1.000_000_000_000_1e-5, 1e-6]]),
    );
    let (document, _) = Document::from_json(&document.to_string()).unwrap();
    assert_eq!(
        document.covariance[1].to_bits(),
        document.covariance[4].to_bits()
    );
}
