//! A bus of its own, and the hub's part on it.

use std::{collections::BTreeMap, ops::RangeInclusive};

use async_nats::{
    HeaderMap,
    jetstream::{self, consumer::pull},
};
use futures_util::StreamExt;
use rovi_common::{
    corrections::{CorrectedRange, Corrections},
    frame::{EstimateFrame, RowFrame, SEQ_HEADER},
    registration::Registration,
    streams::{self, BusSettings},
    subjects,
    testing::{self, TestNats},
};

use crate::{
    rows::{Bits, Estimates, add_estimates},
    twin::PATIENCE,
};

pub(crate) struct Bus {
    pub(crate) nats: TestNats,
    pub(crate) client: async_nats::Client,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) settings: BusSettings,
}

impl Bus {
    /// Starts a server and makes what the hub makes.
    pub(crate) async fn start() -> Self {
        let nats = testing::nats();
        let client = streams::connect(&nats.server.url().parse().unwrap(), "test")
            .await
            .unwrap();
        let bus = Self {
            jetstream: jetstream::new(client.clone()),
            client,
            settings: BusSettings {
                partitions: 3,
                ..BusSettings::default()
            },
            nats,
        };
        bus.make("first life").await;
        bus
    }

    /// Makes streams and bucket, as the hub does for each life of the bus.
    pub(crate) async fn make(&self, bus_epoch: &str) {
        let rows = streams::rows_stream(&self.settings, bus_epoch);
        testing::eventually(PATIENCE, async || {
            self.jetstream
                .get_or_create_stream(rows.clone())
                .await
                .map(drop)
        })
        .await;
        streams::ensure_estimates(&self.jetstream, &self.settings)
            .await
            .unwrap();
        let name = subjects::ESTIMATORS_BUCKET;
        streams::bucket(&self.jetstream, name, &self.settings)
            .await
            .unwrap();
    }

    pub(crate) async fn publish(&self, frames: &[RowFrame]) {
        for frame in frames {
            self.publish_bytes(frame, frame.encode()).await;
        }
    }

    /// Publishes any bytes under the header of a frame.
    pub(crate) async fn publish_bytes(&self, frame: &RowFrame, bytes: bytes::Bytes) {
        let mut headers = HeaderMap::new();
        headers.insert(SEQ_HEADER, frame.seq_header());
        let subject = subjects::rows_of(&frame.battery);
        let sent = self.jetstream.publish_with_headers(subject, headers, bytes);
        sent.await.unwrap().await.unwrap();
    }

    /// Puts a registration into the bucket.
    pub(crate) async fn register(&self, battery: &str, revision: i64, definition: &str) {
        self.put(&Registration {
            battery: battery.parse().unwrap(),
            estimator: "default".parse().unwrap(),
            revision,
            definition: definition.into(),
            valid_from: 0.0,
            required_time: 0.0,
            files: Vec::new(),
            deleted: false,
            changed: 0,
            standing: rovi_common::registration::Standing::default(),
        })
        .await;
    }

    pub(crate) async fn put(&self, registration: &Registration) {
        let name = subjects::ESTIMATORS_BUCKET;
        let bucket = self.jetstream.get_key_value(name).await.unwrap();
        let key = subjects::estimator_key(&registration.battery, &registration.estimator);
        let value = serde_json::to_vec(registration).unwrap();
        bucket.put(key, value.into()).await.unwrap();
    }

    /// Tells of corrections, as the hub does: the range of each.
    pub(crate) async fn correct(&self, battery: &str, ranges: &[(i64, i64)]) {
        let name = subjects::CORRECTIONS_BUCKET;
        let bucket = streams::bucket(&self.jetstream, name, &self.settings).await;
        let told = ranges.iter().zip(1..);
        let told = told.map(|(&(first, last), revision)| CorrectedRange {
            first,
            last,
            revision,
        });
        let corrections = Corrections {
            epoch: 1,
            revision: i64::try_from(ranges.len()).unwrap(),
            ranges: told.collect(),
            ..Corrections::none(battery.parse().unwrap())
        };
        let value = serde_json::to_vec(&corrections).unwrap();
        bucket.unwrap().put(battery, value.into()).await.unwrap();
    }

    /// Reads what the estimates table would hold: of each row what its newest generation says.
    pub(crate) async fn newest_estimates(&self) -> Estimates {
        self.newest_estimates_of("default").await
    }

    /// The same of any estimator.
    pub(crate) async fn newest_estimates_of(&self, estimator: &str) -> Estimates {
        let mut table: BTreeMap<(i64, i64), (i64, Bits)> = BTreeMap::new();
        let mut all = self.estimate_frames().await;
        all.retain(|frame| frame.estimator.as_str() == estimator);
        let mut replaced = Vec::new();
        for frame in all {
            if let Some((first, last)) = frame.replaces {
                replaced.push((first..=last, frame.generation));
                let is_replaced = |seq: i64, generation: i64| {
                    (first..=last).contains(&seq) && generation < frame.generation
                };
                table.retain(|&(_, seq), (generation, _)| !is_replaced(seq, *generation));
            }
            let mut said = Estimates::new();
            add_estimates(&mut said, &frame);
            for (row, bits) in said {
                // A frame that is late does not bring back what a newer one took away.
                let is_over = |(rows, by): &(RangeInclusive<i64>, i64)| {
                    rows.contains(&row.1) && *by > frame.generation
                };
                if replaced.iter().any(is_over) {
                    continue;
                }
                let known = table.get(&row);
                if let Some((_, before)) = known.filter(|known| known.0 == frame.generation) {
                    assert_eq!(*before, bits, "{row:?} differs within one generation");
                }
                if known.is_none_or(|known| known.0 < frame.generation) {
                    table.insert(row, (frame.generation, bits));
                }
            }
        }
        table
            .into_iter()
            .map(|(row, (_, bits))| (row, bits))
            .collect()
    }

    /// Reads all estimates on the stream, asserting that none differs from an earlier one.
    pub(crate) async fn estimates(&self) -> Estimates {
        let mut estimates = Estimates::new();
        for frame in self.estimate_frames().await {
            add_estimates(&mut estimates, &frame);
        }
        estimates
    }

    pub(crate) async fn estimate_frames(&self) -> Vec<EstimateFrame> {
        let name = subjects::ESTIMATES_STREAM;
        let stream = self.jetstream.get_stream(name).await.unwrap();
        let mut left = stream.cached_info().state.messages;
        let consumer = stream
            .create_consumer(pull::Config::default())
            .await
            .unwrap();
        let mut messages = consumer.messages().await.unwrap();
        let mut frames = Vec::new();
        while left > 0 {
            let message = messages.next().await.unwrap().unwrap();
            frames.push(EstimateFrame::decode(&message.payload).unwrap());
            left -= 1;
        }
        frames
    }

    /// Returns which rows of b7 an estimator estimated, each once, asserting that none did so twice and
    /// differently.
    pub(crate) async fn estimates_of(&self, estimator: &str) -> Vec<i64> {
        let name = subjects::ESTIMATES_STREAM;
        let stream = self.jetstream.get_stream(name).await.unwrap();
        let filter_subject = format!("rovi.estimates.b7.{estimator}");
        let config = pull::Config {
            filter_subject,
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await.unwrap();
        let mut left = consumer.cached_info().num_pending;
        let mut messages = consumer.messages().await.unwrap();
        let mut estimates = Estimates::new();
        while left > 0 {
            let message = messages.next().await.unwrap().unwrap();
            let frame = EstimateFrame::decode(&message.payload).unwrap();
            add_estimates(&mut estimates, &frame);
            left -= 1;
        }
        estimates.into_keys().map(|(_, seq)| seq).collect()
    }

    /// Forgets all rows of the stream up to a sequence, as retention does.
    pub(crate) async fn forget_rows(&self, below: u64) {
        let stream = self
            .jetstream
            .get_stream(subjects::ROWS_STREAM)
            .await
            .unwrap();
        stream.purge().sequence(below).await.unwrap();
    }

    /// Returns when the twin has acknowledged every frame on the stream.
    pub(crate) async fn all_acknowledged(&self) {
        testing::eventually(PATIENCE, async || {
            let stream = self.jetstream.get_stream(subjects::ROWS_STREAM).await?;
            for partition in 0..self.settings.partitions {
                let name = subjects::partition_consumer(partition);
                let consumer = stream.get_consumer::<pull::Config>(&name).await?;
                let info = consumer.cached_info();
                if info.num_pending > 0 || info.num_ack_pending > 0 {
                    return Err(async_nats::Error::from(format!("{name}: {info:?}")));
                }
            }
            Ok(())
        })
        .await;
    }
}
