//! The upload client against a hub that breaks off wherever it may.
//!
//! The hub here keeps the rules of `rovi.v1` (`docs/PROTOCOL.md`) and nothing else: sessions and
//! positions, but no database. It stores any part of a frame, acknowledges or not, and then
//! closes or drops the connection. Against the real hub the client is tested by the system tests.

#![expect(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test: what is unexpected ends it"
)]

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use rovi_common::rows::{Column, Columns, Refusal, Value};
use rovicli::upload_client::{Event, Target, UploadClient, UploadError};
use tokio::{
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};
use tungstenite::{
    Message,
    handshake::server::{Request, Response},
    http::HeaderValue,
    protocol::{CloseFrame, frame::coding::CloseCode},
};
use uuid::Uuid;

/// What the hub does to one connection.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// Stores this many rows, then drops the connection without a word.
    DropsAfter(u64),
    /// Stores and acknowledges this many rows, then closes.
    ClosesAfter(u64, u16),
    /// Stores whatever comes.
    Serves,
}

/// What the hub knows and saw.
#[derive(Debug, Default)]
struct Hub {
    stored: Vec<i64>,
    /// Positions at which a new segment began.
    segments: Vec<usize>,
    connections: usize,
    /// The most rows that were waiting for their acknowledgement.
    most_waiting: u64,
}

const WINDOW_ROWS: u64 = 40;
const ROWS_PER_FRAME: u64 = 16;
const ALL_ROWS: i64 = 1000;

/// Serves one connection after the other, each with its fate; the last fate repeats.
async fn serve(listener: TcpListener, fates: Vec<Fate>, hub: Arc<Mutex<Hub>>) {
    let mut connection = 0;
    while let Ok((stream, _)) = listener.accept().await {
        let fate = fates[connection.min(fates.len() - 1)];
        connection += 1;
        let greeted = attend(stream, fate, &hub).await;
        // A connection that the client left before sending rows was not the one meant.
        if !greeted {
            connection -= 1;
        }
    }
}

/// Attends one connection to its end; returns whether rows came.
async fn attend(stream: TcpStream, fate: Fate, hub: &Mutex<Hub>) -> bool {
    let (mut socket, query) = accept(stream).await;
    let position = {
        let mut hub = hub.lock().unwrap();
        hub.connections += 1;
        hub.stored.len() as u64
    };
    let mut connection = Numbering {
        next: query["from"].parse().unwrap(),
        stored: 0,
        new_segment: query.get("segment").is_some_and(|segment| segment == "new"),
    };
    let from = connection.next;
    assert!(
        from <= position,
        "the client skips rows {position} to {from}"
    );
    say(&mut socket, &hello(position)).await;
    let mut rows_came = false;
    while let Some(Ok(message)) = socket.next().await {
        let Message::Binary(frame) = message else {
            continue;
        };
        rows_came = true;
        let rows: Columns = rmp_serde::from_slice(&frame).unwrap();
        assert!(rows.rows() as u64 <= ROWS_PER_FRAME);
        for row in 0..rows.rows() {
            let value = rows.get("n").unwrap().number(row).unwrap();
            connection.take(value as i64, &mut hub.lock().unwrap());
            match fate {
                Fate::DropsAfter(rows) if connection.stored == rows => return true,
                Fate::ClosesAfter(rows, code) if connection.stored == rows => {
                    say(&mut socket, &ack(hub)).await;
                    close(socket, code).await;
                    return true;
                }
                _ => {}
            }
        }
        say(&mut socket, &ack(hub)).await;
    }
    rows_came
}

/// Numbers the rows of one connection.
struct Numbering {
    next: u64,
    stored: u64,
    new_segment: bool,
}

impl Numbering {
    /// Stores a row unless it is stored already.
    fn take(&mut self, row: i64, hub: &mut Hub) {
        let stored = hub.stored.len();
        let waiting = (self.next + 1).saturating_sub(stored as u64);
        hub.most_waiting = hub.most_waiting.max(waiting);
        if self.next == stored as u64 {
            if self.new_segment && self.stored == 0 {
                hub.segments.push(stored);
            }
            hub.stored.push(row);
            self.stored += 1;
        }
        self.next += 1;
    }
}

/// Takes a connection; returns it and what the client asks for.
async fn accept(stream: TcpStream) -> (WebSocketStream<TcpStream>, HashMap<String, String>) {
    let mut query = HashMap::new();
    #[expect(clippy::result_large_err, reason = "the signature is tungstenite's")]
    let answer = |request: &Request, mut response: Response| {
        assert_eq!(request.headers()["sec-websocket-protocol"], "rovi.v1");
        let text = request.uri().query().unwrap_or_default();
        query = url::form_urlencoded::parse(text.as_bytes())
            .into_owned()
            .collect();
        let protocol = HeaderValue::from_static("rovi.v1");
        let headers = response.headers_mut();
        headers.insert("sec-websocket-protocol", protocol);
        Ok(response)
    };
    let socket = accept_hdr_async(stream, answer).await.unwrap();
    (socket, query)
}

/// Closes and waits for the client to answer, as a hub that stops does.
async fn close(mut socket: WebSocketStream<TcpStream>, code: u16) {
    let close = CloseFrame {
        code: CloseCode::from(code),
        reason: "as planned".into(),
    };
    socket.close(Some(close)).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
}

fn hello(position: u64) -> String {
    format!(
        r#"{{"type": "hello", "battery": "b7", "epoch": 1, "session": "x", "position": {position},
        "limits": {{"frame_bytes": 4096, "rows_per_frame": {ROWS_PER_FRAME}, "row_bytes": 1024,
        "columns": 800, "column_name_bytes": 63, "window_rows": {WINDOW_ROWS}}}}}"#
    )
}

fn ack(hub: &Mutex<Hub>) -> String {
    let stored = hub.lock().unwrap().stored.len();
    format!(r#"{{"type": "ack", "received": {stored}, "stored": {stored}, "relayed": {stored}}}"#)
}

async fn say(socket: &mut WebSocketStream<TcpStream>, text: &str) {
    // The client may have left.
    let _sent = socket.send(Message::text(text)).await.is_ok();
}

/// Starts a hub with these fates; returns where it is and what it knows.
async fn start(fates: &[Fate]) -> (Target, Arc<Mutex<Hub>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target {
        hub: format!("http://{}", listener.local_addr().unwrap())
            .parse()
            .unwrap(),
        battery: "b7".parse().unwrap(),
        session: Uuid::nil(),
        new_segment: true,
        token: None,
        trust: rovi_common::tls::Trust::default(),
    };
    let hub = Arc::default();
    tokio::task::spawn_local(serve(listener, fates.to_vec(), Arc::clone(&hub)));
    (target, hub)
}

fn batch(from: i64, to: i64) -> Columns {
    let numbers = Column::Int((from..to).map(Some).collect());
    Columns::new(vec![("n".to_owned(), numbers)]).unwrap()
}

/// Sends what is not stored, in batches of this many rows.
async fn send_all(target: Target, batch_rows: usize) -> Result<(), UploadError> {
    let mut client = UploadClient::connect(target, Box::new(|_| ())).await?;
    let start = i64::try_from(client.position()).unwrap();
    for from in (start..ALL_ROWS).step_by(batch_rows) {
        let to = ALL_ROWS.min(from + i64::try_from(batch_rows).unwrap());
        client.send(batch(from, to)).await?;
    }
    let progress = client.finish().await?;
    assert_eq!(progress.stored, ALL_ROWS as u64);
    Ok(())
}

fn assert_each_row_once(hub: &Mutex<Hub>) {
    let hub = hub.lock().unwrap();
    assert_eq!(hub.stored, (0..ALL_ROWS).collect::<Vec<_>>());
    assert_eq!(hub.segments, [0], "the session is one segment");
    assert!(
        hub.most_waiting <= WINDOW_ROWS,
        "{} rows were waiting",
        hub.most_waiting
    );
}

#[tokio::test(flavor = "local")]
async fn rows_arrive_once_and_in_order_within_the_window() {
    for batch_rows in [1, 7, 16, 300, 1000] {
        let (target, hub) = start(&[Fate::Serves]).await;
        send_all(target, batch_rows).await.unwrap();
        assert_each_row_once(&hub);
        assert_eq!(hub.lock().unwrap().connections, 1);
    }
}

#[tokio::test(flavor = "local")]
async fn a_connection_lost_anywhere_loses_and_doubles_nothing() {
    let run = async |lost_after: u64, batch_rows: usize| {
        let fates = [
            Fate::DropsAfter(lost_after),
            Fate::ClosesAfter(lost_after, 1012),
            Fate::DropsAfter(3),
            Fate::ClosesAfter(5, 1013),
            Fate::Serves,
        ];
        let (target, hub) = start(&fates).await;
        send_all(target, batch_rows).await.unwrap();
        assert_each_row_once(&hub);
    };
    let runs = [1, 15, 16, 17, 23, 100].into_iter().flat_map(|lost_after| {
        let run = &run;
        [1, 10, 64].map(move |batch_rows| run(lost_after, batch_rows))
    });
    futures_util::future::join_all(runs).await;
}

#[tokio::test(flavor = "local")]
async fn a_second_run_goes_on_where_the_first_was_broken_off() {
    let (target, hub) = start(&[Fate::Serves]).await;
    let mut first = UploadClient::connect(target.clone(), Box::new(|_| ()))
        .await
        .unwrap();
    first.send(batch(0, 333)).await.unwrap();
    first.flush().await.unwrap();
    drop(first);
    send_all(target, 100).await.unwrap();
    assert_each_row_once(&hub);
    // The second run asks where to go on, then connects from there.
    assert_eq!(hub.lock().unwrap().connections, 3);
}

#[tokio::test(flavor = "local")]
async fn a_send_that_is_broken_off_and_called_again_doubles_nothing() {
    let (target, hub) = start(&[Fate::Serves]).await;
    let mut client = UploadClient::connect(target, Box::new(|_| ()))
        .await
        .unwrap();
    for from in (0..ALL_ROWS).step_by(100) {
        // Rows were taken when the future is dropped; they go out with the next call.
        let soon = Instant::now() + Duration::from_micros(200);
        let _broken_off = tokio::time::timeout_at(soon, client.send(batch(from, from + 100))).await;
    }
    client.finish().await.unwrap();
    assert_each_row_once(&hub);
}

#[tokio::test(flavor = "local")]
async fn a_refusal_ends_the_upload_with_the_hubs_words() {
    for code in [1007, 1008] {
        let (target, hub) = start(&[Fate::ClosesAfter(20, code)]).await;
        let error = send_all(target, 10).await.unwrap_err();
        assert!(matches!(error, UploadError::Refused { .. }), "{error:?}");
        assert!(error.to_string().contains("as planned"), "{error}");
        assert_eq!(
            hub.lock().unwrap().connections,
            1,
            "sending again cannot help"
        );
    }
}

#[tokio::test(flavor = "local")]
async fn what_happens_is_told() {
    let (target, _hub) = start(&[Fate::ClosesAfter(20, 1012), Fate::Serves]).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let events = Arc::clone(&told);
    let sink = Box::new(move |event| events.lock().unwrap().push(event));
    let mut client = UploadClient::connect(target, sink).await.unwrap();
    client.send(batch(0, 30)).await.unwrap();
    client.finish().await.unwrap();
    let told = told.lock().unwrap();
    let lost = told
        .iter()
        .position(|event| matches!(event, Event::Lost { .. }))
        .unwrap();
    assert_eq!(
        told[lost + 1..],
        [
            Event::Resumed { position: 20 },
            Event::Stored { position: 30 }
        ]
    );
}

#[tokio::test]
async fn a_hub_that_is_away_is_told_at_once_with_what_to_do() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hub = format!("http://{}", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    drop(listener);
    let target = Target {
        hub,
        battery: "b7".parse().unwrap(),
        session: Uuid::nil(),
        new_segment: false,
        token: None,
        trust: rovi_common::tls::Trust::default(),
    };
    let error = UploadClient::connect(target, Box::new(|_| ()))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("start it with `rovicli up`"),
        "{error}"
    );
}

#[tokio::test(flavor = "local")]
async fn a_cell_that_no_column_can_hold_costs_only_itself() {
    let (target, hub) = start(&[Fate::Serves]).await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let events = Arc::clone(&told);
    let sink = Box::new(move |event: Event| events.lock().unwrap().push(event.to_string()));
    let mut client = UploadClient::connect(target, sink).await.unwrap();
    let mut rows = batch(0, 3).into_vec();
    let refused = Value::Refused(Refusal::Array);
    let cells = vec![Value::Int(1), refused, Value::Int(3)];
    rows.push(("big".to_owned(), Column::Mixed(cells)));
    client.send(Columns::new(rows).unwrap()).await.unwrap();
    client.finish().await.unwrap();
    assert_eq!(hub.lock().unwrap().stored, [0, 1, 2]);
    assert_eq!(
        told.lock().unwrap()[0],
        "row 1, column `big`: a nested array cannot be stored in a column; it is sent as null"
    );
}

#[tokio::test(flavor = "local")]
async fn a_client_that_waits_for_the_bus_hears_of_it_over_any_number_of_connections() {
    let (target, hub) = start(&[Fate::DropsAfter(20), Fate::Serves]).await;
    let mut client = UploadClient::connect(target, Box::new(|_| ()))
        .await
        .unwrap();
    client.send(batch(0, 100)).await.unwrap();
    client.relayed().await.unwrap();
    assert_eq!(client.progress().relayed, 100);
    assert_eq!(hub.lock().unwrap().stored.len(), 100);
}
