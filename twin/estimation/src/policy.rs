//! What an estimator does when it has diverged: the policies of [`OnDivergence`].

use serde::{Deserialize, Serialize};

use crate::document::Document;
use crate::estimator::Estimator;
use crate::filter::Filter;
use crate::trust::{OnDivergence, TrustState};

/// A belief to come back to; empty where the policy asks for none. Part of the snapshot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Keepsake {
    /// That of the document, or, for `hold`, of the last healthy window, its transients moved on by the current.
    pub(crate) mean: Vec<f64>,
    covariance: Vec<f64>,
}

impl Keepsake {
    pub(crate) fn new(document: &Document) -> Self {
        match document.trust.on_divergence {
            OnDivergence::Report => Self::default(),
            _ => Self {
                mean: document.initial_mean(),
                covariance: document.covariance.clone(),
            },
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.mean.len()
    }

    fn keep(&mut self, filter: &Filter) {
        self.mean.copy_from_slice(&filter.belief().mean);
        self.covariance.copy_from_slice(&filter.belief().covariance);
    }
}

impl Estimator {
    /// After a window was judged: keeps a belief that may be believed.
    pub(crate) fn keep_if_healthy(&mut self) {
        let may_keep = self.trust_rules.on_divergence == OnDivergence::Hold
            && self.trust.state == TrustState::Healthy
            && !self.trust.is_holding;
        if may_keep {
            self.keepsake.keep(&self.filter);
        }
    }

    /// Does what the document says about a filter that has diverged.
    pub(crate) fn intervene(&mut self) {
        let policy = self.trust_rules.on_divergence;
        let n = self.names.len();
        let mut mean = self.mean().to_vec();
        match policy {
            OnDivergence::Report => return,
            OnDivergence::Hold if self.trust.is_holding => return,
            OnDivergence::Hold => mean.copy_from_slice(&self.keepsake.mean),
            OnDivergence::Reinitialise => {
                let soc = self.soc().clamp(0.0, 1.0);
                mean.copy_from_slice(&self.keepsake.mean);
                if let Some(first) = mean.first_mut() {
                    *first = soc;
                }
            }
            OnDivergence::Inflate => {}
        }
        debug_assert_eq!(
            self.keepsake.covariance.len(),
            n * n,
            "made with the estimator"
        );
        if mean.iter().all(|value| value.is_finite())
            && self.filter.set_belief(&mean, &self.keepsake.covariance)
        {
            self.trust.interventions += 1;
            self.trust.is_holding = policy == OnDivergence::Hold;
        }
    }
}
