//! The newest picture of each battery's history as a file (`sink = "png"`), for use without a bus.
//!
//! `hub.batteries` is looked at again and again, so rows of other hubs, corrections and deletions
//! are seen, too. Pictures are drawn one after the other: a large fleet makes each older, and
//! leaves uploads their cores.

use std::{collections::HashMap, sync::Arc, time::Duration};

use actix_web::web;
use diesel::{QueryableByName, RunQueryDsl, sql_query, sql_types};
use rovi_common::{error::ErrorChain, name::BatteryName};
use rovi_pictures::{Folder, Look};

use crate::{
    history::{draw, picture},
    hub::Hub,
    store::{
        StoreError, durable,
        rows::Selection,
        source::{Of, Source},
    },
};

/// The newest rows that a picture shows, at most.
const SHOWN_ROWS: i64 = 10_000;
/// How often changes are looked for; so a picture is drawn at most so often.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Batteries read at once.
const PAGE: i64 = 2000;

/// A battery as it stands in `hub.batteries`.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
struct Line {
    #[diesel(sql_type = sql_types::BigInt)]
    id: i64,
    #[diesel(sql_type = sql_types::Text)]
    name: String,
    #[diesel(sql_type = sql_types::BigInt)]
    epoch: i64,
    #[diesel(sql_type = sql_types::BigInt)]
    last_seq: i64,
    #[diesel(sql_type = sql_types::BigInt)]
    form: i64,
    #[diesel(sql_type = sql_types::BigInt)]
    corrections: i64,
}

/// Keeps the pictures.
pub(crate) struct Pictures {
    hub: web::Data<Hub>,
    folder: Folder,
    /// What each picture shows, by the battery's id; `None` where drawing failed.
    drawn: HashMap<i64, (String, Option<Line>)>,
}

impl Pictures {
    pub(crate) fn new(hub: web::Data<Hub>, folder: Folder) -> Self {
        Self {
            hub,
            folder,
            drawn: HashMap::new(),
        }
    }

    /// Draws what changes, until the service stops.
    pub(crate) async fn keep(mut self) {
        let stop = self.hub.stop.clone();
        let keeping = async {
            loop {
                if let Err(error) = self.look().await {
                    tracing::debug!("pictures wait: {}", ErrorChain(&error));
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        stop.run_until_cancelled(keeping).await;
    }

    async fn look(&mut self) -> Result<(), StoreError> {
        let lines = self.lines().await?;
        self.forget_missing(&lines);
        for line in lines {
            let known = self.drawn.get(&line.id);
            if known.is_some_and(|(_, drawn)| drawn.as_ref() == Some(&line)) {
                continue;
            }
            let failed_before = known.is_some_and(|(_, drawn)| drawn.is_none());
            let name = line.name.clone();
            let (id, drawn) = match self.draw(&name).await {
                Ok(()) => (line.id, Some(line)),
                Err(error) => {
                    // It is tried again at every look; once is enough to say so.
                    if !failed_before {
                        tracing::warn!(battery.id = %name, "the picture of {name} is not drawn: {error:#}");
                    }
                    (line.id, None)
                }
            };
            self.drawn.insert(id, (name, drawn));
        }
        Ok(())
    }

    /// Reads all batteries that have rows.
    async fn lines(&self) -> Result<Vec<Line>, StoreError> {
        let mut lines: Vec<Line> = Vec::new();
        loop {
            let after_id = lines.last().map_or(i64::MIN, |line| line.id);
            let page: Vec<Line> = self
                .hub
                .pool
                .run(move |connection| {
                    let query = "SELECT id, name, epoch, last_seq, form, corrections \
                                 FROM hub.batteries WHERE id > $1 AND last_seq > 0 \
                                 ORDER BY id LIMIT $2";
                    let query = sql_query(query).bind::<sql_types::BigInt, _>(after_id);
                    Ok(query.bind::<sql_types::BigInt, _>(PAGE).load(connection)?)
                })
                .await?;
            let is_last = page.is_empty();
            lines.extend(page);
            if is_last {
                return Ok(lines);
            }
        }
    }

    /// Removes the pictures of batteries that were deleted.
    fn forget_missing(&mut self, lines: &[Line]) {
        // In the order of ids, as they were read.
        let is_there = |id: &i64| lines.binary_search_by_key(id, |line| line.id).is_ok();
        let gone = self.drawn.extract_if(|id, _| !is_there(id));
        for (_, (name, _)) in gone {
            // The name may live again already.
            if lines.iter().any(|line| line.name == name) {
                continue;
            }
            if let Err(error) = self.folder.remove(&file(&name)) {
                tracing::warn!("the picture of {name} stays: {}", ErrorChain(&error));
            }
        }
    }

    async fn draw(&self, name: &str) -> anyhow::Result<()> {
        let battery: BatteryName = name.parse()?;
        let open = move |connection: &mut _| {
            let source = Source::open(connection, &battery, &Of::Rows);
            durable::settle(connection)?;
            Ok(source)
        };
        let source = Arc::new(self.hub.pool.run(open).await??);
        let look = Look::default();
        let chosen = (draw::usual_axis(&source), picture::usual(&source));
        let last = source.line.last_seq;
        let newest = Selection::by_seq((last - SHOWN_ROWS + 1).max(1)..=last);
        let chart = draw::chart(&self.hub, &source, chosen, newest, look).await?;
        let (folder, file) = (self.folder.clone(), file(name));
        let kept = tokio::task::spawn_blocking(move || -> anyhow::Result<()> {
            Ok(folder.put(&file, &rovi_pictures::png(&chart, look)?)?)
        });
        kept.await?
    }
}

fn file(name: &str) -> String {
    format!("history_{name}")
}
