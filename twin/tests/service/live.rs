//! What the twin tells everyone: states, events, heartbeats, live sockets and event streams.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rovi_common::{
    frame::RowFrame,
    news::{ASYNC_API, BatteryState},
    registration::Registration,
    rows::{Column, Columns},
    streams, subjects,
    testing::eventually,
};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest},
};

use crate::{
    bus::Bus,
    rows::{DOCUMENT, Row, drive, frame, frames},
    twin::{PATIENCE, Twin, settings},
};

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(crate) async fn open(twin: &Twin, query: &str) -> Socket {
    let url = format!("{}/ws{query}", twin.url.replace("http", "ws"));
    tokio_tungstenite::connect_async(url).await.unwrap().0
}

/// Returns the next message, passing over pings.
async fn hear(socket: &mut Socket) -> Message {
    loop {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await;
        match message.expect("a message comes").unwrap().unwrap() {
            Message::Ping(_) | Message::Pong(_) => {}
            message => return message,
        }
    }
}

pub(crate) async fn hear_json(socket: &mut Socket) -> Value {
    match hear(socket).await {
        Message::Text(text) => serde_json::from_str(&text).unwrap(),
        other => panic!("no text: {other:?}"),
    }
}

/// Returns the first message about a battery for which a condition holds.
pub(crate) async fn hear_until(
    socket: &mut Socket,
    battery: &str,
    condition: impl Fn(&Value) -> bool,
) -> Value {
    loop {
        let message = hear_json(socket).await;
        let data = &message[format!("battery:{battery}:data")];
        if !data.is_null() && condition(data) {
            return data.clone();
        }
    }
}

/// Waits until the state of a battery on the bus satisfies a condition.
pub(crate) async fn state(
    bus: &Bus,
    battery: &str,
    condition: impl Fn(&BatteryState) -> bool,
) -> BatteryState {
    let subject = subjects::state_of(&battery.parse().unwrap());
    eventually(PATIENCE, async || {
        let stream = bus.jetstream.get_stream(subjects::STATE_STREAM).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let message = stream.get_last_raw_message_by_subject(&subject).await;
        let message = message.map_err(|error| error.to_string())?;
        let state = BatteryState::decode(&message.payload).map_err(|error| error.to_string())?;
        if condition(&state) {
            Ok(state)
        } else {
            Err(format!("{state:?}"))
        }
    })
    .await
}

async fn events(bus: &Bus, battery: &str, count: u64) -> Vec<Value> {
    let stream = eventually(PATIENCE, async || {
        let stream = bus.jetstream.get_stream(subjects::EVENTS_STREAM).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let found = stream.cached_info().state.messages;
        if found >= count {
            Ok(stream)
        } else {
            Err(format!("{found} events"))
        }
    })
    .await;
    let mut events = Vec::new();
    for sequence in 1..=count {
        let message = stream.get_raw_message(sequence).await.unwrap();
        assert_eq!(message.subject.as_str(), format!("rovi.event.{battery}"));
        events.push(serde_json::from_slice(&message.payload).unwrap());
    }
    events
}

#[tokio::test]
async fn the_newest_row_of_a_battery_without_an_estimator_is_its_state() {
    let bus = Bus::start().await;
    let twin = Twin::start(settings(&bus));
    bus.publish(&frames("b7", &drive(100), 1, 7)).await;
    let state = state(&bus, "b7", |state| state.seq == 100).await;
    assert_eq!(state.number("test_time"), Some(100.0));
    assert!(state.estimators.is_empty());
    assert!(twin.stop(), "the service ends cleanly");
}

#[tokio::test]
async fn row_and_estimates_stand_in_one_state_with_charge_and_health() {
    let bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let twin = Twin::start(settings(&bus));
    twin.ready("state").await;
    bus.publish(&frames("b7", &drive(100), 1, 7)).await;
    let status = twin.reached("b7", 100).await;
    let default = "default".parse().unwrap();
    let told = state(&bus, "b7", |state| {
        state.seq == 100
            && state
                .estimators
                .get(&default)
                .is_some_and(|one| one.seq == 100)
    })
    .await;
    let charge = told.value(&default, "state_of_charge").unwrap();
    assert_eq!(charge.mean, status["mean"][0].as_f64());
    let capacity = told.value(&default, "q_t.base_values").unwrap();
    let health = told.value(&default, "state_of_health").unwrap();
    assert_eq!(health.mean, capacity.mean.map(|ah| ah / 2.2));
    assert!(health.std > Some(0.0));
}

#[tokio::test]
async fn a_restart_of_the_bus_that_empties_its_memory_costs_no_state() {
    let mut bus = Bus::start().await;
    let twin = Twin::start(settings(&bus));
    bus.publish(&frames("b7", &drive(10), 1, 10)).await;
    state(&bus, "b7", |state| state.seq == 10).await;
    bus.nats.server.kill();
    bus.nats.server.start_again().unwrap();
    state(&bus, "b7", |state| state.seq == 10).await;
    drop(twin);
}

#[tokio::test]
async fn rows_from_before_there_were_states_have_one_as_soon_as_a_twin_runs() {
    let bus = Bus::start().await;
    bus.publish(&frames("b7", &drive(10), 1, 4)).await;
    let first = Twin::start(settings(&bus));
    state(&bus, "b7", |state| state.seq == 10).await;
    first.kill();
    bus.jetstream
        .delete_stream(subjects::STATE_STREAM)
        .await
        .unwrap();
    // Every frame is acknowledged: none comes again.
    let _second = Twin::start(settings(&bus));
    state(&bus, "b7", |state| state.seq == 10).await;
}

#[tokio::test]
async fn two_twins_that_know_the_same_do_not_contradict_each_other() {
    let bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let twins = [Twin::start(settings(&bus)), Twin::start(settings(&bus))];
    bus.publish(&frames("b7", &drive(50), 1, 10)).await;
    let default = "default".parse().unwrap();
    let reached = |state: &BatteryState| {
        state
            .estimators
            .get(&default)
            .is_some_and(|one| one.seq == 50 && one.phase == "live")
    };
    state(&bus, "b7", reached).await;
    // Each twin serves it, whoever owns the partition.
    for twin in &twins {
        let mut socket = open(twin, "?battery=b7").await;
        let data = &hear_json(&mut socket).await["battery:b7:data"];
        assert_eq!(data["seq"], 50);
    }
    let sequence = || async {
        let stream = bus
            .jetstream
            .get_stream(subjects::STATE_STREAM)
            .await
            .unwrap();
        stream.cached_info().state.last_sequence
    };
    let settled = sequence().await;
    for twin in &twins {
        twin.reached("b7", 50).await;
    }
    assert!(sequence().await <= settled + 2);
}

#[tokio::test]
async fn changes_of_estimators_are_told_once_also_by_two_twins() {
    let bus = Bus::start().await;
    let twins = [Twin::start(settings(&bus)), Twin::start(settings(&bus))];
    for twin in &twins {
        twin.ready("registrations").await;
    }
    let registered = |revision, deleted| Registration {
        battery: "b7".parse().unwrap(),
        estimator: "default".parse().unwrap(),
        revision,
        definition: if deleted { "".into() } else { DOCUMENT.into() },
        valid_from: 0.0,
        required_time: 0.0,
        files: Vec::new(),
        deleted,
        changed: rovi_common::clock::now_us(),
        standing: rovi_common::registration::Standing::default(),
    };
    for (revision, deleted) in [(1, false), (2, false), (3, true)] {
        bus.put(&registered(revision, deleted)).await;
        events(&bus, "b7", u64::try_from(revision).unwrap()).await;
    }
    // An old one is no news.
    bus.put(&Registration {
        changed: 0,
        ..registered(4, false)
    })
    .await;
    bus.put(&registered(5, false)).await;
    let told = events(&bus, "b7", 4).await;
    let told: Vec<_> = told
        .iter()
        .map(|one| (&one["type"], &one["revision"]))
        .collect();
    assert_eq!(
        json!(told),
        json!([
            ["estimator_registered", 1],
            ["estimator_replaced", 2],
            ["estimator_removed", 3],
            ["estimator_replaced", 5],
        ])
    );
}

#[tokio::test]
async fn an_estimator_that_cannot_run_is_told_as_an_event() {
    let bus = Bus::start().await;
    bus.register("b7", 1, "{\"kind\": \"unheard of\"}").await;
    let _twin = Twin::start(settings(&bus));
    bus.publish(&frames("b7", &drive(2), 1, 2)).await;
    let told = events(&bus, "b7", 1).await;
    assert_eq!(told[0]["type"], "estimator_failed");
    assert!(
        told[0]["reason"].as_str().unwrap().contains("kind"),
        "{told:?}"
    );
}

#[tokio::test]
async fn heartbeats_say_who_lives_and_are_shown() {
    let bus = Bus::start().await;
    let mut settings = settings(&bus);
    settings.heartbeat_interval = Duration::from_millis(50);
    let twin = Twin::start(settings);
    let shown = eventually(PATIENCE, async || {
        let services = twin.get("/online/services").await;
        match services.as_array().and_then(|all| all.first()) {
            Some(one) => Ok(one.clone()),
            None => Err(services.to_string()),
        }
    })
    .await;
    assert_eq!(shown["service"], "twin");
    let subject = subjects::heartbeat_of("twin", shown["instance"].as_str().unwrap());
    let mut heartbeats = bus.client.subscribe(subject).await.unwrap();
    // The server answers in order: now it knows of the subscription.
    bus.jetstream.query_account().await.unwrap();
    assert!(twin.stop(), "the service ends cleanly");
    let mut last = Value::Null;
    while last["state"] != "stopping" {
        let heartbeat = heartbeats.next().await.unwrap();
        last = serde_json::from_slice(&heartbeat.payload).unwrap();
    }
}

#[tokio::test]
async fn a_socket_gets_a_snapshot_then_each_change_and_hears_of_new_batteries() {
    let bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let twin = Twin::start(settings(&bus));
    twin.ready("state").await;
    let mut socket = open(&twin, "").await;
    assert_eq!(hear_json(&mut socket).await, json!({}));

    let now = rovi_common::clock::now_us();
    let rows = frames("b7", &drive(20), 1, 10);
    let rows = rows.into_iter().map(|frame| RowFrame {
        received: vec![now; 10],
        ..frame
    });
    bus.publish(&rows.collect::<Vec<_>>()).await;
    let data = hear_until(&mut socket, "b7", |data| {
        data["seq"] == 20 && data["state_of_charge"].is_f64()
    })
    .await;
    assert_eq!(data["timestamp"], now / 1000);
    assert_eq!(data["voltage"].as_f64(), Some(drive(20)[19][2]));
    assert!(data["latency_ms"].as_i64() >= Some(0));
    let sent = data["ws_timestamp"].as_i64().unwrap();
    assert_eq!(sent - now / 1000, data["latency_ms"].as_i64().unwrap());

    let mut later = open(&twin, "").await;
    let snapshot = hear_json(&mut later).await;
    assert_eq!(snapshot["battery:b7:data"]["seq"], 20);
    assert!(snapshot["battery:b7:data"].get("latency_ms").is_none());
    bus.publish(&frames("new", &drive(1), 1, 1)).await;
    for socket in [&mut socket, &mut later] {
        hear_until(socket, "new", |data| data["seq"] == 1).await;
    }
}

#[tokio::test]
async fn a_socket_gets_the_batteries_and_fields_that_it_asks_for() {
    let bus = Bus::start().await;
    let twin = Twin::start(settings(&bus));
    for battery in ["a", "b"] {
        bus.publish(&frames(battery, &drive(3), 1, 3)).await;
        state(&bus, battery, |state| state.seq == 3).await;
    }
    let mut socket = open(&twin, "?battery=a&fields=voltage,state_of_charge").await;
    let snapshot = hear_json(&mut socket).await;
    let expected = json!({"battery:a:data": {
        "timestamp": 0, "voltage": drive(3)[2][2], "state_of_charge": null,
    }});
    assert_eq!(snapshot, expected);
    bus.publish(&frames("b", &drive(4)[3..], 4, 1)).await;
    bus.publish(&frames("a", &drive(4)[3..], 4, 1)).await;
    let news = hear_json(&mut socket).await;
    assert!(news["battery:a:data"]["latency_ms"].is_i64(), "{news}");
}

#[tokio::test]
async fn what_cannot_be_had_is_told_by_status_or_close_code() {
    let bus = Bus::start().await;
    let mut settings = settings(&bus);
    settings.live.sockets = 1;
    let twin = Twin::start(settings);
    twin.ready("state").await;
    let wrong = twin.get("/ws?filter=a").await;
    assert_eq!(
        (&wrong["status"], &wrong["field"]),
        (&400.into(), &"filter".into())
    );
    let unknown = twin.get("/events?battery=nobody").await;
    assert_eq!(unknown["status"], 404);

    let code = |message: Message| match message {
        Message::Close(Some(frame)) => (u16::from(frame.code), frame.reason.to_string()),
        other => panic!("no close: {other:?}"),
    };
    let mut socket = open(&twin, "?battery=nobody").await;
    let (number, reason) = code(hear(&mut socket).await);
    assert_eq!(number, 4404, "{reason}");
    assert!(reason.contains("nobody"), "{reason}");

    let mut request = format!("{}/ws", twin.url.replace("http", "ws"))
        .into_client_request()
        .unwrap();
    let protocol = "rovi.v1".parse().unwrap();
    request
        .headers_mut()
        .insert("sec-websocket-protocol", protocol);
    let mut first = eventually(PATIENCE, async || {
        let (mut socket, _) = tokio_tungstenite::connect_async(request.clone())
            .await
            .unwrap();
        match hear(&mut socket).await {
            Message::Text(text) => Ok((socket, text)),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let hello: Value = serde_json::from_str(&first.1).unwrap();
    assert_eq!(hello["notice"]["limits"]["sockets"], 1);
    let mut second = open(&twin, "").await;
    assert_eq!(code(hear(&mut second).await).0, 1013);

    assert_eq!(hear_json(&mut first.0).await, json!({}));
    let long = Message::Text("x".repeat(5000).into());
    first.0.send(long).await.unwrap();
    assert_eq!(code(hear(&mut first.0).await).0, 1009);
}

#[tokio::test]
async fn a_stop_of_the_service_closes_sockets_with_a_reason() {
    let bus = Bus::start().await;
    let twin = Twin::start(settings(&bus));
    twin.ready("state").await;
    let mut socket = open(&twin, "").await;
    hear_json(&mut socket).await;
    let stopping = tokio::task::spawn_blocking(move || twin.stop());
    match hear(&mut socket).await {
        Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 1012),
        other => panic!("no close: {other:?}"),
    }
    drop(socket);
    assert!(stopping.await.unwrap(), "the service ends cleanly");
}

#[tokio::test]
async fn a_socket_that_is_stuck_changes_nothing_for_the_others_and_gets_the_newest_later() {
    let bus = Bus::start().await;
    let twin = Twin::start(settings(&bus));
    twin.ready("state").await;
    let mut stuck = open(&twin, "").await;
    assert_eq!(hear_json(&mut stuck).await, json!({}));
    let mut quick = open(&twin, "").await;
    assert_eq!(hear_json(&mut quick).await, json!({}));
    // So much that no buffer between here and there holds it.
    let batteries = 120;
    let large = |seq: i64| {
        let text = Column::Text(vec![Some("x".repeat(30_000))]);
        move |battery: i64| {
            let row: [Row; 1] = [[1.0, 1.0, 3.5, 25.0]];
            let mut frame = frame(&format!("b{battery}"), (1, 1), seq, &row);
            let mut columns = frame.columns.clone().into_vec();
            columns.push(("log".to_owned(), text.clone()));
            frame.columns = Columns::new(columns).unwrap();
            frame
        }
    };
    for seq in 1..=4 {
        bus.publish(&(0..batteries).map(large(seq)).collect::<Vec<_>>())
            .await;
        let mut left = batteries;
        while left > 0 {
            let message = hear_json(&mut quick).await;
            let data = message.as_object().unwrap().values().next().unwrap();
            left -= i64::from(data["seq"] == seq);
        }
    }
    let mut last = vec![0; usize::try_from(batteries).unwrap()];
    let mut conflated = 0;
    while last.iter().any(|&seq| seq < 4) || conflated == 0 {
        let message = hear_json(&mut stuck).await;
        conflated += message["notice"]["states"].as_i64().unwrap_or(0);
        for (name, data) in message.as_object().unwrap() {
            let battery = name.strip_prefix("battery:b");
            let battery = battery.and_then(|name| name.strip_suffix(":data"));
            if let Some(battery) = battery.and_then(|name| name.parse::<usize>().ok()) {
                let seq = data["seq"].as_i64().unwrap();
                assert!(seq > last[battery], "newer ones only");
                last[battery] = seq;
            }
        }
    }
}

/// Reads server-sent events until enough came: their identifiers and data.
async fn read_events(answer: &mut reqwest::Response, count: usize) -> Vec<(String, Value)> {
    let (mut text, mut events) = (String::new(), Vec::new());
    while events.len() < count {
        let chunk = tokio::time::timeout(PATIENCE, answer.chunk())
            .await
            .unwrap();
        text += std::str::from_utf8(&chunk.unwrap().unwrap()).unwrap();
        while let Some((event, rest)) = text.split_once("\n\n") {
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
            if let Some(data) = field("data: ") {
                let id = field("id: ").unwrap_or_default().to_owned();
                events.push((id, serde_json::from_str(data).unwrap()));
            }
            text = rest.to_owned();
        }
    }
    events
}

#[tokio::test]
async fn an_event_stream_goes_on_behind_the_last_event() {
    let bus = Bus::start().await;
    let twin = Twin::start(settings(&bus));
    bus.publish(&frames("b7", &drive(10), 1, 10)).await;
    bus.publish(&frames("idle", &drive(1), 1, 1)).await;
    state(&bus, "b7", |state| state.seq == 10).await;
    state(&bus, "idle", |state| state.seq == 1).await;
    let client = reqwest::Client::new();
    let get = |query: &str, last: &str| {
        let request = client.get(format!("{}/events{query}", twin.url));
        request.header("last-event-id", last).send()
    };
    let mut one = get("?battery=b7", "").await.unwrap();
    let (id, data) = read_events(&mut one, 1).await.remove(0);
    assert_eq!(
        (id.as_str(), &data["battery:b7:data"]["seq"]),
        ("b7:1:10", &10.into())
    );
    let mut all = get("", "").await.unwrap();
    let (id, data) = read_events(&mut all, 1).await.remove(0);
    assert_eq!(data.as_object().unwrap().len(), 2);

    bus.publish(&frames("b7", &drive(13)[10..], 11, 3)).await;
    state(&bus, "b7", |state| state.seq == 13).await;
    let mut again = get("?battery=b7", "b7:1:10").await.unwrap();
    let events = read_events(&mut again, 4).await;
    let seqs: Vec<_> = events[1..]
        .iter()
        .map(|(_, data)| &data["battery:b7:data"]["seq"])
        .collect();
    assert_eq!(json!(seqs), json!([11, 12, 13]));
    let mut changed = eventually(PATIENCE, async || {
        let mut answer = get("", &id).await.map_err(|error| error.to_string())?;
        let (_, data) = read_events(&mut answer, 1).await.remove(0);
        if data["battery:b7:data"]["seq"] == 13 {
            Ok(data)
        } else {
            Err(data.to_string())
        }
    })
    .await;
    let changed = changed.as_object_mut().unwrap();
    assert_eq!(changed.len(), 1, "what did not change does not come again");
}

fn assert_valid(description: &Value, schema: &str, message: &Value) {
    let mut whole = description.clone();
    whole["$ref"] = format!("#/components/schemas/{schema}").into();
    let validator = jsonschema::validator_for(&whole).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(message)
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{schema}: {errors:?} in {message}");
}

/// Every key is described.
fn assert_described(description: &Value, schema: &str, message: &Value) {
    let known = &description["components"]["schemas"][schema]["properties"];
    for key in message.as_object().unwrap().keys() {
        assert!(known.get(key).is_some(), "{schema} has no `{key}`");
    }
}

#[tokio::test]
async fn what_is_published_is_as_the_description_says() {
    let description: Value = serde_json::from_str(ASYNC_API).unwrap();
    let valid = |schema: &str, message: &Value| assert_valid(&description, schema, message);
    let described = |schema: &str, message: &Value| assert_described(&description, schema, message);
    let bus = Bus::start().await;
    bus.register("b7", 1, DOCUMENT).await;
    let mut settings = settings(&bus);
    settings.heartbeat_interval = Duration::from_millis(50);
    let mut heartbeats = bus
        .client
        .subscribe(subjects::all_heartbeats())
        .await
        .unwrap();
    let twin = Twin::start(settings);
    assert_eq!(twin.get("/asyncapi.json").await, description);
    let mut socket = open(&twin, "").await;
    valid("Live", &hear_json(&mut socket).await);
    let nan: [Row; 2] = [[1.0, 1.0, 3.5, 25.0], [2.0, 1.0, f64::NAN, 25.0]];
    bus.publish(&[frame("b7", (1, 1), 1, &nan)]).await;
    let told = state(&bus, "b7", |state| {
        state.estimators.values().any(|one| one.seq == 2)
    })
    .await;
    let told = serde_json::to_value(told).unwrap();
    valid("BatteryState", &told);
    described("BatteryState", &told);
    described("EstimatorState", &told["estimators"]["default"]);
    let data = hear_json(&mut socket).await;
    valid("Live", &data);
    let heartbeat = heartbeats.next().await.unwrap();
    let heartbeat = serde_json::from_slice(&heartbeat.payload).unwrap();
    valid("Heartbeat", &heartbeat);
    described("Heartbeat", &heartbeat);

    streams::ensure_events(&bus.jetstream, &bus.settings)
        .await
        .unwrap();
    bus.put(&Registration {
        battery: "b7".parse().unwrap(),
        estimator: "default".parse().unwrap(),
        revision: 2,
        definition: "{}".into(),
        valid_from: 0.0,
        required_time: 0.0,
        files: Vec::new(),
        deleted: false,
        changed: rovi_common::clock::now_us(),
        standing: rovi_common::registration::Standing::default(),
    })
    .await;
    for event in events(&bus, "b7", 2).await {
        valid("Event", &event);
        described("EstimatorEvent", &event);
    }
}
