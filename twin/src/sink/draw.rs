//! Draws what changed.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus::IntCounter;
use rovi_common::{name::BatteryName, telemetry::Metrics};
use rovi_pictures::{Folder, Look};
use tokio_util::sync::CancellationToken;

use super::recent::Recent;

/// How often changes are looked for; so a picture is drawn at most so often.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Keeps the pictures; they are drawn one after the other.
pub(super) struct Pictures {
    recent: Arc<Mutex<Recent>>,
    folder: Folder,
    drawn: IntCounter,
    /// Batteries whose picture was not drawn the last time.
    failing: BTreeSet<BatteryName>,
}

impl Pictures {
    pub(super) fn new(recent: Arc<Mutex<Recent>>, folder: Folder, metrics: &Metrics) -> Self {
        Self {
            recent,
            folder,
            drawn: metrics.counter("twin_pictures_total", "Pictures that were drawn."),
            failing: BTreeSet::new(),
        }
    }

    /// Draws what changes, until the service stops.
    pub(super) async fn keep(mut self, stop: CancellationToken) {
        let keeping = async {
            loop {
                let changed = self.recent().changed();
                for battery in changed {
                    self.redraw(battery).await;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        stop.run_until_cancelled(keeping).await;
    }

    async fn redraw(&mut self, battery: BatteryName) {
        match self.draw(&battery).await {
            Ok(()) => {
                self.failing.remove(&battery);
            }
            Err(error) => {
                if self.failing.insert(battery.clone()) {
                    tracing::warn!(
                        battery.id = %battery,
                        "the picture of {battery} is not drawn: {error:#}"
                    );
                }
                self.recent().again(battery);
            }
        }
    }

    async fn draw(&self, battery: &BatteryName) -> anyhow::Result<()> {
        let (chart, is_gone) = {
            let recent = self.recent();
            (recent.chart(battery), recent.is_gone(battery))
        };
        let (folder, file) = (self.folder.clone(), format!("estimates_{battery}"));
        let drawn = self.drawn.clone();
        let kept = tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
            match chart {
                Some(chart) => {
                    folder.put(&file, &rovi_pictures::png(&chart, Look::default())?)?;
                    drawn.inc();
                }
                None if is_gone => folder.remove(&file)?,
                None => {}
            }
            Ok(())
        });
        kept.await?
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
