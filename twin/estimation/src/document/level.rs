//! One level of the health parameters: its marks, its curves, and the binding of what is estimated.

use super::error::{DocumentError, Warning};
use super::reader::{Node, Object};
use crate::interpolation::{Curve, STYLES, Scalar, Style, Values};

type Result<T> = std::result::Result<T, DocumentError>;

/// Gives estimated parameters their places in the state vector.
pub(super) struct Binder<'w> {
    pub(super) first: usize,
    pub(super) names: Vec<String>,
    pub(super) values: Vec<f64>,
    pub(super) warnings: &'w mut Vec<Warning>,
}

impl Binder<'_> {
    pub(super) fn scalar(&mut self, name: &str, value: f64, is_estimated: bool) -> Scalar {
        if !is_estimated {
            return Scalar::Fixed(value);
        }
        self.names.push(name.to_owned());
        self.values.push(value);
        Scalar::State(self.first + self.values.len() - 1)
    }

    pub(super) fn values(&mut self, name: &str, list: Vec<f64>, is_estimated: bool) -> Values {
        if !is_estimated {
            return Values::Fixed(list);
        }
        let (first, count) = (self.first + self.values.len(), list.len());
        if count == 1 {
            self.names.push(name.to_owned());
        } else {
            self.names
                .extend((0..count).map(|index| format!("{name}[{index}]")));
        }
        self.values.extend(list);
        Values::State { first, count }
    }
}

/// A sub-model: its object, its own marks, and whether the levels above mark it.
pub(super) struct Level<'a> {
    pub(super) object: Object<'a>,
    pub(super) marks: Vec<&'a str>,
    pub(super) is_reached: bool,
}

impl<'a> Level<'a> {
    /// Opens the sub-model at `node`; its last path segment must be among the `above` marks for its own to count.
    pub(super) fn new(node: &Node<'a>, above: &[&str], keys: &[&str]) -> Result<Self> {
        let name = node.path().rsplit('.').next().unwrap_or_default();
        Self::reached(node, above.contains(&name), keys)
    }

    pub(super) fn reached(node: &Node<'a>, is_reached: bool, keys: &[&str]) -> Result<Self> {
        const NEVER: [&str; 3] = ["updatable", "soc_pinpoints", "interpolation_style"];
        let object = node.object(keys)?;
        let is_resistance = keys.contains(&"temperature_dependence_factor");
        let is_curve = keys.contains(&"base_values");
        let allowed: Vec<&str> = keys
            .iter()
            .copied()
            .filter(|key| !NEVER.contains(key))
            .filter(|&key| !((is_resistance || is_curve) && key == "reference_temperature"))
            .collect();
        let marks = marks(&object, &allowed)?;
        Ok(Self {
            object,
            marks,
            is_reached,
        })
    }

    pub(super) fn refuse(&self, key: &str, problem: &str) -> DocumentError {
        DocumentError::Field {
            path: self.object.path_of(key),
            problem: problem.to_owned(),
        }
    }

    fn is_estimated(&self, key: &str, binder: &mut Binder<'_>) -> bool {
        let is_marked = self.marks.contains(&key);
        if is_marked && !self.is_reached {
            binder.warnings.push(Warning {
                path: self.object.path_of("updatable"),
                message: format!(
                    "{key} is marked here but not on the levels above, so it is not estimated"
                ),
            });
        }
        is_marked && self.is_reached
    }

    pub(super) fn scalar(
        &self,
        key: &str,
        name: &str,
        default: f64,
        binder: &mut Binder<'_>,
    ) -> Result<Scalar> {
        let value = self.object.number_or(key, default)?;
        let is_estimated = self.is_estimated(key, binder);
        Ok(binder.scalar(name, value, is_estimated))
    }

    /// The curve held by this level, `default` standing for missing values.
    pub(super) fn curve(
        &self,
        name: &str,
        default: Option<f64>,
        binder: &mut Binder<'_>,
    ) -> Result<Curve> {
        let values = match (self.object.get("base_values"), default) {
            (Some(node), _) => node.values()?,
            (None, Some(value)) => vec![value],
            (None, None) => {
                return Err(self.refuse("base_values", "missing; give one value or several"));
            }
        };
        if values.is_empty() {
            return Err(self.refuse("base_values", "empty; give one value or several"));
        }
        let style = self.style()?;
        let pinpoints = self.pinpoints(values.len(), style)?;
        let is_estimated = self.is_estimated("base_values", binder);
        let values = binder.values(&format!("{name}.base_values"), values, is_estimated);
        Curve::new(style, pinpoints.as_deref(), values).ok_or_else(|| {
            self.refuse(
                "soc_pinpoints",
                "no curve can be laid through these pinpoints",
            )
        })
    }

    fn style(&self) -> Result<Style> {
        let Some(node) = self.object.get("interpolation_style") else {
            return Ok(Style::Linear);
        };
        let name = node.text()?;
        Style::named(name).ok_or_else(|| {
            let known: Vec<&str> = STYLES.iter().map(|(known, _)| *known).collect();
            node.refuse(format!(
                "unknown style {name:?}; known are {}",
                known.join(", ")
            ))
        })
    }

    fn pinpoints(&self, count: usize, style: Style) -> Result<Option<Vec<f64>>> {
        if count > 1 && count < style.fewest_pinpoints() {
            let needed = style.fewest_pinpoints();
            let problem = format!("this style needs at least {needed} values, got {count}");
            return Err(self.refuse("interpolation_style", &problem));
        }
        let Some(node) = self.object.get("soc_pinpoints") else {
            return Ok(None);
        };
        let pinpoints = node.values()?;
        if pinpoints.len() != count {
            return Err(node.refuse(format!(
                "expected {count} pinpoints, one for each of base_values, got {}",
                pinpoints.len()
            )));
        }
        let mut sorted = pinpoints.clone();
        sorted.sort_by(f64::total_cmp);
        let repeated = sorted.windows(2).find_map(|pair| match pair {
            [a, b] if a >= b => Some(*a),
            _ => None,
        });
        match repeated {
            Some(place) => Err(node.refuse(format!("the pinpoint {place} repeats"))),
            None => Ok(Some(pinpoints)),
        }
    }
}

/// The list `updatable`, every entry of which must be in `allowed`.
pub(super) fn marks<'a>(object: &Object<'a>, allowed: &[&str]) -> Result<Vec<&'a str>> {
    let Some(list) = object.get("updatable") else {
        return Ok(Vec::new());
    };
    let mut marks = Vec::new();
    for entry in list.list()? {
        let name = entry.text()?;
        if name == "c0" && !allowed.contains(&"c0") {
            return Err(entry.refuse("c0 cannot be estimated; take it off this list"));
        }
        if !allowed.contains(&name) {
            return Err(entry.refuse(format!(
                "{name:?} is not a parameter that can be estimated here; these are: {}",
                allowed.join(", ")
            )));
        }
        marks.push(name);
    }
    Ok(marks)
}
