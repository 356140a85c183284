//! Which partitions this twin owns, so that the twins share the work through NATS alone.
//!
//! A twin claims partitions in a bucket (`claims.rs`) up to its fair share (`balance.rs`), follows
//! the frames of those it owns ([`subscribe`]) and runs their batteries' estimators.
//! One with more than its share, since another joined, gives the surplus up: no more frames, last
//! checkpoints, acknowledgements, then the partition. Claims of a twin that dies end after
//! `priority_timeout`. A frozen one that goes on hears that others have its partitions; until then
//! the pinned client keeps frames from it, and compare-and-set its checkpoints from the bus.

mod balance;
mod claims;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt, future::join_all};
use tokio::{task::JoinSet, time::MissedTickBehavior};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::claims::{Claim, Claims, View};
use crate::{
    fleet::Fleet,
    subscribe::{self, Partitions},
};

const OPEN_AGAIN: Duration = Duration::from_millis(250);
/// A claim is written so many times before it would end.
const BEATS: u32 = 5;

/// A partition that this twin owns.
#[derive(Debug)]
struct Tenure {
    revision: u64,
    stop: CancellationToken,
    followed: tokio::task::JoinHandle<Option<subscribe::Owned>>,
}

/// What this twin owns.
struct Share {
    fleet: Arc<Fleet>,
    partitions: Arc<Partitions>,
    instance: String,
    held: BTreeMap<u32, Tenure>,
    following: TaskTracker,
    /// Partitions that are being given up, and whether the claim has to go.
    leaving: JoinSet<(u32, Option<u64>)>,
    busy: BTreeSet<u32>,
}

/// Shares the partitions with other twins until the service stops, then hands all over.
pub async fn run(fleet: Arc<Fleet>, partitions: Arc<Partitions>) {
    let shared = Arc::clone(fleet.shared());
    let mut share = Share {
        instance: shared.instance.clone(),
        fleet,
        partitions,
        held: BTreeMap::new(),
        following: TaskTracker::new(),
        leaving: JoinSet::new(),
        busy: BTreeSet::new(),
    };
    let mut claims = None;
    while !shared.stop.is_cancelled() {
        let problem = tokio::select! {
            () = shared.stop.cancelled() => break,
            problem = share.follow(&mut claims) => problem,
        };
        share.partitions.tell_share(Some(problem));
        tokio::select! {
            () = shared.stop.cancelled() => break,
            () = tokio::time::sleep(OPEN_AGAIN) => {}
        }
    }
    share.end(claims.as_ref()).await;
}

impl Share {
    /// Follows one life of the bucket; returns why that ended.
    async fn follow(&mut self, claims: &mut Option<Claims>) -> String {
        let shared = Arc::clone(self.fleet.shared());
        let (bus, lasting) = (&shared.settings.bus, shared.settings.priority_timeout);
        let opened = Claims::open(&shared.jetstream, bus, (&self.instance, lasting)).await;
        let claims: &Claims = match opened {
            Ok(opened) => claims.insert(opened),
            Err(problem) => return problem,
        };
        let made = claims.bucket.stream.cached_info().created;
        let mut watch = match claims.bucket.watch_with_history(">").await {
            Ok(watch) => watch,
            Err(error) => return format!("the twins' claims cannot be followed: {error}"),
        };
        let mut said = match claims.live().await {
            Ok(said) => said,
            Err(problem) => return problem,
        };
        let mut view = View::default();
        let mut beat = tokio::time::interval(lasting / BEATS);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                entry = watch.next() => match entry {
                    Some(Ok(entry)) => view.apply(&entry),
                    Some(Err(error)) => return format!("the twins' claims cannot be followed: {error}"),
                    None => return "the twins' claims are no longer followed; trying again".to_owned(),
                },
                Some(left) = self.leaving.join_next() => self.left(claims, left).await,
                _ = beat.tick() => {
                    match claims.bucket.stream.get_info().await {
                        Ok(info) if info.created == made => {}
                        Ok(_) => return "the bucket of the twins' claims was made again".to_owned(),
                        Err(error) => return format!("the twins' claims cannot be read: {error}"),
                    }
                    said = match claims.live().await {
                        Ok(said) => said,
                        Err(problem) => return problem,
                    };
                    self.renew(claims).await;
                }
            }
            if view.is_current(&self.instance, said) {
                self.settle(claims, &view).await;
            }
        }
    }

    /// Writes the claims again, so that they do not end.
    async fn renew(&mut self, claims: &Claims) {
        let renewed = join_all(self.held.iter().map(|(partition, tenure)| async {
            (*partition, claims.hold(*partition, tenure.revision).await)
        }));
        for (partition, renewed) in renewed.await {
            match renewed {
                Ok(Claim::Held(revision)) => {
                    if let Some(tenure) = self.held.get_mut(&partition) {
                        tenure.revision = revision;
                    }
                }
                Ok(Claim::Taken) => self.lose(partition),
                // With the bus away nobody can take it.
                Err(problem) => tracing::debug!("{problem}"),
            }
        }
    }

    /// Takes what is free and gives up what is too much.
    async fn settle(&mut self, claims: &Claims, view: &View) {
        let lost = self.held.iter().filter_map(|(partition, tenure)| {
            let is_lost = view.is_lost(*partition, tenure.revision, &self.instance);
            is_lost.then_some(*partition)
        });
        for partition in lost.collect::<Vec<_>>() {
            self.lose(partition);
        }
        self.fleet.shared().owners.set(view.owners());
        let count = self.fleet.shared().settings.bus.partitions;
        let all = view.held(&self.instance, self.held.len());
        let share = balance::share_of(&self.instance, &all, count);
        let share = usize::try_from(share).unwrap_or(usize::MAX);
        if self.held.len() < share {
            self.claim(claims, view, share - self.held.len()).await;
        }
        let surplus = self.held.len().saturating_sub(share);
        let surplus: Vec<u32> = self.held.keys().rev().take(surplus).copied().collect();
        for partition in surplus {
            tracing::info!("partition {partition} is given up: other twins have less");
            self.leave(partition, true);
        }
        self.partitions.tell_share(None);
    }

    async fn claim(&mut self, claims: &Claims, view: &View, most: usize) {
        let count = self.fleet.shared().settings.bus.partitions;
        let free = (0..count).filter(|partition| {
            let is_ours = self.held.contains_key(partition) || self.busy.contains(partition);
            !is_ours
                && view
                    .owner(*partition)
                    .is_none_or(|owner| owner == self.instance)
        });
        let tried = join_all(
            free.take(most)
                .map(|partition| async move { (partition, claims.hold(partition, 0).await) }),
        );
        for (partition, tried) in tried.await {
            match tried {
                Ok(Claim::Held(revision)) => self.enter(partition, revision),
                Ok(Claim::Taken) => {}
                Err(problem) => tracing::debug!("{problem}"),
            }
        }
    }

    fn enter(&mut self, partition: u32, revision: u64) {
        tracing::info!("partition {partition} is owned by this twin");
        let stop = self.fleet.shared().stop.child_token();
        let (fleet, partitions) = (Arc::clone(&self.fleet), Arc::clone(&self.partitions));
        self.fleet.enter(partition);
        partitions.tell(partition, Some("not opened yet".to_owned()));
        let following = subscribe::follow(fleet, partition, partitions, stop.clone());
        let tenure = Tenure {
            revision,
            stop,
            followed: self.following.spawn(following),
        };
        self.held.insert(partition, tenure);
    }

    fn lose(&mut self, partition: u32) {
        tracing::warn!("partition {partition} went to another twin");
        self.leave(partition, false);
    }

    /// Ends the work on a partition in the background.
    fn leave(&mut self, partition: u32, has_claim: bool) {
        let Some(tenure) = self.held.remove(&partition) else {
            return;
        };
        self.busy.insert(partition);
        self.partitions.tell(partition, None);
        let fleet = Arc::clone(&self.fleet);
        self.leaving.spawn(async move {
            tenure.stop.cancel();
            let owned = tenure.followed.await.ok().flatten();
            fleet.leave(partition).await;
            if let Some(owned) = owned.filter(|_| has_claim) {
                owned.hand_over().await;
            }
            (partition, has_claim.then_some(tenure.revision))
        });
    }

    /// Lets others claim a partition on which the work ended.
    async fn left(
        &mut self,
        claims: &Claims,
        left: Result<(u32, Option<u64>), tokio::task::JoinError>,
    ) {
        let Ok((partition, revision)) = left else {
            return;
        };
        self.busy.remove(&partition);
        if let Some(revision) = revision {
            claims.release(partition, revision).await;
        }
    }

    /// Hands everything over and says that this twin is no more.
    async fn end(mut self, claims: Option<&Claims>) {
        for partition in self.held.keys().copied().collect::<Vec<_>>() {
            self.leave(partition, true);
        }
        while let Some(left) = self.leaving.join_next().await {
            if let Some(claims) = claims {
                self.left(claims, left).await;
            }
        }
        if let Some(claims) = claims {
            claims.end().await;
        }
    }
}
