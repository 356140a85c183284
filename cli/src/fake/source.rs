//! Where the rows of a battery come from.

use std::sync::Arc;

use anyhow::Result;
use rovi_common::rows::Columns;

use super::Recording;
use crate::simulation::{Damage, Simulation};

/// Rows without end.
#[derive(Debug)]
pub enum Source {
    /// A simulated cell.
    Simulated(Box<Simulation>),
    /// A file that begins again when it ends.
    Played {
        /// The file.
        recording: Arc<Recording>,
        /// The next row, counted over all rounds.
        next: u64,
    },
}

impl Source {
    /// Returns the next rows.
    ///
    /// # Errors
    /// The model of the cell cannot go on.
    pub fn take(&mut self, count: usize) -> Result<Columns> {
        match self {
            Self::Simulated(simulation) => Ok(simulation.take_rows(count)?),
            Self::Played { recording, next } => {
                let rows = recording.rows(*next, count)?;
                *next += count as u64;
                Ok(rows)
            }
        }
    }

    /// Damages a simulated cell.
    pub(super) fn damage(&mut self, damage: Damage) {
        if let Self::Simulated(simulation) = self {
            simulation.damage(damage);
        }
    }
}
