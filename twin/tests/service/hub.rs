//! The hub's part: rows over HTTP, registrations over NATS.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
        mpsc,
    },
};

use actix_web::{App, HttpResponse, HttpServer, dev::ServerHandle, web};
use async_nats::Subscriber;
use futures_util::StreamExt;
use rovi_common::{
    frame::RowFrame,
    name::{BatteryName, EstimatorName},
    registration::{
        Action, Champion, Control, Deregister, Register, Registration, Reply, Standing,
    },
    subjects,
};

use crate::bus::Bus;

/// Serves the rows of one battery as the hub does.
pub(crate) struct HubOfRows {
    pub(crate) url: url::Url,
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    /// The rows, which tests may correct and delete.
    pub(crate) rows: Arc<Mutex<Vec<RowFrame>>>,
    /// The last row of which estimates of revision 1 are stored.
    pub(crate) stored: Arc<AtomicI64>,
    handle: ServerHandle,
}

#[derive(serde::Deserialize)]
struct Query {
    seq: String,
    limit: usize,
    format: String,
}

impl HubOfRows {
    /// Starts a hub with frames of one row each, for every cut to be possible.
    pub(crate) fn start(rows: Vec<RowFrame>) -> Self {
        let (tell, told) = mpsc::channel();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let stored = Arc::new(Mutex::new(rows));
        let rows = web::Data::from(Arc::clone(&stored));
        let estimated = Arc::new(AtomicI64::new(0));
        let lineage_of = web::Data::from(Arc::clone(&estimated));
        let log = web::Data::from(Arc::clone(&asked));
        std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async {
                let server = HttpServer::new(move || {
                    App::new()
                        .app_data(rows.clone())
                        .app_data(log.clone())
                        .app_data(lineage_of.clone())
                        .route("/db/{battery}/estimates/lineage", web::get().to(lineage))
                        .route("/health", web::get().to(HttpResponse::Ok))
                        .route("/db/{battery}/rows", web::get().to(answer))
                        .route("/db/{battery}/metadata", web::get().to(metadata))
                });
                let server = server.workers(1).disable_signals();
                let server = server.bind(("127.0.0.1", 0)).unwrap();
                let address = server.addrs()[0];
                let running = server.run();
                tell.send((address, running.handle())).unwrap();
                running.await.unwrap();
            });
        });
        let (address, handle) = told.recv().unwrap();
        Self {
            url: format!("http://{address}").parse().unwrap(),
            asked,
            rows: stored,
            stored: estimated,
            handle,
        }
    }

    /// Puts other values in place of a row, or takes it away.
    pub(crate) fn correct(&self, seq: i64, row: Option<RowFrame>) {
        let mut rows = self.rows.lock().unwrap();
        let place = rows
            .iter()
            .position(|known| known.first_seq == seq)
            .unwrap();
        match row {
            Some(row) => rows[place] = row,
            None => drop(rows.remove(place)),
        }
    }
}

impl Drop for HubOfRows {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
    }
}

/// What made the estimates that are stored: a first pass.
async fn lineage(stored: web::Data<AtomicI64>) -> HttpResponse {
    let last_seq = stored.load(Ordering::Relaxed);
    let made = serde_json::json!({
        "epoch": 1, "revision": 1, "generation": 1, "first_seq": 2, "last_seq": last_seq,
    });
    HttpResponse::Ok().json(serde_json::json!({"lineage": [made]}))
}

/// The metadata of every battery; the nominal capacity of `b9` is none.
async fn metadata(battery: web::Path<String>) -> HttpResponse {
    let capacity = if battery.as_str() == "b9" { -1.0 } else { 12.5 };
    let battery = serde_json::json!({"nominal_capacity": capacity});
    HttpResponse::Ok().json(serde_json::json!({"battery": battery}))
}

async fn answer(
    rows: web::Data<Mutex<Vec<RowFrame>>>,
    asked: web::Data<Mutex<Vec<String>>>,
    query: web::Query<Query>,
) -> HttpResponse {
    asked.lock().unwrap().push(query.seq.clone());
    assert_eq!(query.format, "msgpack");
    let (from, to) = query.seq.split_once("..").unwrap();
    let from: i64 = from.parse().unwrap();
    let to: i64 = to.parse().unwrap_or(i64::MAX);
    let rows = rows.lock().unwrap();
    let chosen = rows
        .iter()
        .filter(|row| (from..=to).contains(&row.first_seq));
    let body: Vec<u8> = chosen
        .take(query.limit)
        .flat_map(RowFrame::encode)
        .collect();
    let last = rows.last().unwrap();
    // Every hole is a row that was deleted by hand.
    let holes = rows.windows(2).filter_map(|pair| {
        let (before, after) = (pair[0].first_seq, pair[1].first_seq);
        (after > before + 1).then(|| format!("{}-{}", before + 1, after - 1))
    });
    let holes: Vec<String> = holes.collect();
    let mut answer = HttpResponse::Ok();
    if !holes.is_empty() {
        answer.insert_header(("Rovi-Deleted", holes.join(",")));
    }
    answer
        .insert_header(("Rovi-Epoch", last.epoch))
        .insert_header(("Rovi-First-Seq", rows[0].first_seq))
        .insert_header(("Rovi-Last-Seq", last.last_seq()))
        .content_type("application/msgpack")
        .body(body)
}

/// Begins to take requests as the hub does.
pub(crate) async fn take_requests(bus: &Bus) -> Subscriber {
    let queue = subjects::HUB_QUEUE.to_owned();
    let requests = bus
        .client
        .queue_subscribe("rovi.hub.>", queue)
        .await
        .unwrap();
    // The server answers in order: now it knows of the subscription.
    bus.jetstream.query_account().await.unwrap();
    requests
}

/// What the hub knows.
#[derive(Default)]
struct Table {
    revision: i64,
    registrations: BTreeMap<String, Registration>,
    champions: BTreeMap<BatteryName, Champion>,
}

impl Table {
    fn next(&mut self) -> i64 {
        self.revision += 1;
        self.revision
    }

    fn register(&mut self, asked: Register) -> Registration {
        let revision = self.next();
        let champion = Champion {
            era: revision,
            estimator: Some(EstimatorName::default()),
            epoch: 1,
            from_seq: 1,
        };
        if asked.estimator == EstimatorName::default() {
            let champions = &mut self.champions;
            champions.entry(asked.battery.clone()).or_insert(champion);
        }
        Registration {
            battery: asked.battery,
            estimator: asked.estimator,
            revision,
            definition: asked.definition.into(),
            valid_from: asked.valid_from,
            required_time: asked.required_time,
            files: asked.files,
            deleted: false,
            changed: 0,
            standing: Standing::default(),
        }
    }

    fn deregister(&mut self, asked: Deregister) -> Registration {
        Registration {
            battery: asked.battery,
            estimator: asked.estimator,
            revision: self.next(),
            definition: "".into(),
            valid_from: 0.0,
            required_time: 0.0,
            files: Vec::new(),
            deleted: true,
            changed: 0,
            standing: Standing::default(),
        }
    }

    fn control(&mut self, asked: &Control) -> Option<Registration> {
        let key = subjects::estimator_key(&asked.battery, &asked.estimator);
        let mut registration = self.registrations.get(&key)?.clone();
        let version = self.next();
        registration.standing.version = version;
        match asked.action {
            Action::Pause => registration.standing.paused = true,
            Action::Resume => registration.standing.paused = false,
            Action::Reset => registration.revision = version,
            Action::Promote => {
                let champion = Champion {
                    era: version,
                    estimator: Some(asked.estimator.clone()),
                    epoch: 1,
                    from_seq: version,
                };
                self.champions.insert(asked.battery.clone(), champion);
            }
        }
        Some(registration)
    }

    fn keep(&mut self, mut registration: Registration) -> Registration {
        let champion = self.champions.get(&registration.battery);
        registration.standing.champion = champion.cloned();
        let key = subjects::estimator_key(&registration.battery, &registration.estimator);
        self.registrations.insert(key, registration.clone());
        registration
    }
}

/// Commits registrations of any battery but `unknown`, from revision 1.
pub(crate) async fn commit_registrations(bus: &Bus, mut requests: Subscriber) {
    let mut table = Table::default();
    while let Some(request) = requests.next().await {
        let payload = &request.payload;
        let changed = match request.subject.as_str() {
            subjects::REGISTER => Some(table.register(serde_json::from_slice(payload).unwrap())),
            subjects::CONTROL => table.control(&serde_json::from_slice(payload).unwrap()),
            _ => Some(table.deregister(serde_json::from_slice(payload).unwrap())),
        };
        let changed = changed.filter(|changed| changed.battery.as_str() != "unknown");
        let reply = match changed.map(|changed| table.keep(changed)) {
            None => Reply::NotFound {
                detail: "there is no battery `unknown`".to_owned(),
            },
            Some(registration) => {
                bus.put(&registration).await;
                Reply::Done(Box::new(registration))
            }
        };
        let bytes = serde_json::to_vec(&reply).unwrap();
        bus.client
            .publish(request.reply.unwrap(), bytes.into())
            .await
            .unwrap();
    }
}
