//! The hub's part: rows over HTTP, registrations over NATS.

use std::sync::{Arc, Mutex, mpsc};

use actix_web::{App, HttpResponse, HttpServer, dev::ServerHandle, web};
use async_nats::Subscriber;
use futures_util::StreamExt;
use rovi_common::{
    frame::RowFrame,
    registration::{Deregister, Register, Registration, Reply},
    subjects,
};

use crate::bus::Bus;

/// Serves the rows of one battery as the hub does.
pub(crate) struct HubOfRows {
    pub(crate) url: url::Url,
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
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
        let (rows, log) = (web::Data::new(rows), web::Data::from(Arc::clone(&asked)));
        std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async {
                let server = HttpServer::new(move || {
                    App::new()
                        .app_data(rows.clone())
                        .app_data(log.clone())
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
            handle,
        }
    }
}

impl Drop for HubOfRows {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
    }
}

/// The metadata of every battery; the nominal capacity of `b9` is none.
async fn metadata(battery: web::Path<String>) -> HttpResponse {
    let capacity = if battery.as_str() == "b9" { -1.0 } else { 12.5 };
    let battery = serde_json::json!({"nominal_capacity": capacity});
    HttpResponse::Ok().json(serde_json::json!({"battery": battery}))
}

async fn answer(
    rows: web::Data<Vec<RowFrame>>,
    asked: web::Data<Mutex<Vec<String>>>,
    query: web::Query<Query>,
) -> HttpResponse {
    asked.lock().unwrap().push(query.seq.clone());
    assert_eq!(query.format, "msgpack");
    let (from, to) = query.seq.split_once("..").unwrap();
    let from: i64 = from.parse().unwrap();
    let to: i64 = to.parse().unwrap_or(i64::MAX);
    let chosen = rows
        .iter()
        .filter(|row| (from..=to).contains(&row.first_seq));
    let body: Vec<u8> = chosen
        .take(query.limit)
        .flat_map(RowFrame::encode)
        .collect();
    let last = rows.last().unwrap();
    HttpResponse::Ok()
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

/// Commits registrations of any battery but `unknown`, from revision 1.
pub(crate) async fn commit_registrations(bus: &Bus, mut requests: Subscriber) {
    let mut revision = 0;
    while let Some(request) = requests.next().await {
        revision += 1;
        let registration = if request.subject.as_str() == subjects::REGISTER {
            let asked: Register = serde_json::from_slice(&request.payload).unwrap();
            Registration {
                battery: asked.battery,
                estimator: asked.estimator,
                revision,
                definition: asked.definition,
                valid_from: asked.valid_from,
                required_time: asked.required_time,
                files: asked.files,
                deleted: false,
                changed: 0,
            }
        } else {
            let asked: Deregister = serde_json::from_slice(&request.payload).unwrap();
            Registration {
                battery: asked.battery,
                estimator: asked.estimator,
                revision,
                definition: String::new(),
                valid_from: 0.0,
                required_time: 0.0,
                files: Vec::new(),
                deleted: true,
                changed: 0,
            }
        };
        let reply = if registration.battery.as_str() == "unknown" {
            Reply::NotFound {
                detail: "there is no battery `unknown`".to_owned(),
            }
        } else {
            bus.put(&registration).await;
            Reply::Done(Box::new(registration))
        };
        let bytes = serde_json::to_vec(&reply).unwrap();
        bus.client
            .publish(request.reply.unwrap(), bytes.into())
            .await
            .unwrap();
    }
}
