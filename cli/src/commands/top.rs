//! `rovicli top`: all batteries as they are now, until Ctrl-C.

mod screen;
mod table;

use std::{
    io::{self, Write},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use console::Term;
use futures_util::StreamExt;
use rovi_common::{name::BatteryName, news::Heartbeat};
use tokio::{net::TcpStream, time::Instant};
use tokio_tungstenite::{
    Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config,
};
use tungstenite::{Message, client::IntoClientRequest, http::HeaderValue};
use url::Url;

use self::{screen::Screen, table::Fleet};
use crate::hub::Hub;

/// How often the terminal is painted.
const PAINT_EVERY: Duration = Duration::from_millis(500);
/// How often the services are asked for.
const SERVICES_EVERY: Duration = Duration::from_secs(5);
const CONNECT_AGAIN: Duration = Duration::from_secs(1);
/// How long the first message may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What lines are sorted by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Sort {
    /// The battery's name.
    #[default]
    Name,
    /// When the newest row came, the oldest first.
    Age,
    /// State of charge, the lowest first.
    Soc,
    /// State of health, the lowest first.
    Soh,
    /// Voltage, the lowest first.
    Voltage,
    /// Current, the lowest first.
    Current,
    /// Temperature, the lowest first.
    Temperature,
}

/// Arguments of `rovicli top`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only these batteries, separated by commas.
    #[arg(long, value_delimiter = ',')]
    battery: Vec<BatteryName>,
    /// Only batteries whose name holds this text.
    #[arg(long, default_value = "")]
    filter: String,
    /// What to sort by.
    #[arg(long, value_enum, default_value_t)]
    sort: Sort,
    /// The other way round.
    #[arg(long)]
    reverse: bool,
    /// Print one table and end, as is done where the output is no terminal.
    #[arg(long)]
    once: bool,
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(super) async fn run(hub: &Hub, args: &Args) -> Result<()> {
    let terminal = Term::stdout();
    let is_once = args.once || !terminal.is_term();
    let mut socket = connect(hub, args).await?;
    let mut fleet = Fleet::default();
    let first = tokio::time::timeout(PATIENCE, hear(&mut socket, &mut fleet)).await;
    first.context("the twin sent no state in time")??;
    let mut services = ask_services(hub).await;
    if is_once {
        let table = fleet.table(args.sort, args.reverse, &args.filter);
        write!(
            io::stdout(),
            "{}{}",
            table::services(&services),
            table::text(&table)
        )?;
        return Ok(());
    }
    let mut screen = Screen::open(terminal)?;
    let mut painted = tokio::time::interval(PAINT_EVERY);
    let mut asked = Instant::now();
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        tokio::select! {
            stopped = &mut interrupted => return Ok(stopped?),
            heard = hear(&mut socket, &mut fleet) => if let Err(error) = heard {
                fleet.remark = format!("{error:#}; connecting again");
                tokio::select! {
                    stopped = &mut interrupted => return Ok(stopped?),
                    again = connect_again(hub, args) => socket = again,
                }
                fleet = Fleet::default();
            },
            _ = painted.tick() => {
                if asked.elapsed() >= SERVICES_EVERY {
                    services = ask_services(hub).await;
                    asked = Instant::now();
                }
                let table = fleet.table(args.sort, args.reverse, &args.filter);
                screen.paint(&table::services(&services), &table, &fleet.remark)?;
            }
        }
    }
}

async fn connect(hub: &Hub, args: &Args) -> Result<Socket> {
    let url = address(hub.url(), &args.battery)?;
    let mut request = url.as_str().into_client_request()?;
    if let Some(token) = hub.token() {
        let mut shown: HeaderValue = format!("Bearer {}", token.expose()).parse()?;
        shown.set_sensitive(true);
        request.headers_mut().insert("authorization", shown);
    }
    let tls = Connector::Rustls(hub.trust().config());
    let connecting = connect_async_tls_with_config(request, None, false, Some(tls));
    let connected = tokio::time::timeout(PATIENCE, connecting).await;
    let connected = connected.context("the hub does not answer")?;
    let (socket, _) = connected.with_context(|| format!("{url} cannot be watched"))?;
    Ok(socket)
}

async fn connect_again(hub: &Hub, args: &Args) -> Socket {
    loop {
        tokio::time::sleep(CONNECT_AGAIN).await;
        if let Ok(socket) = connect(hub, args).await {
            return socket;
        }
    }
}

/// Returns where the live socket is.
fn address(hub: &Url, batteries: &[BatteryName]) -> Result<Url> {
    let mut url = hub.join("ws").context("the hub's URL cannot be used")?;
    let scheme = if hub.scheme() == "https" { "wss" } else { "ws" };
    if url.set_scheme(scheme).is_err() {
        bail!("the hub's URL {hub} is no http address");
    }
    if !batteries.is_empty() {
        let names: Vec<&str> = batteries.iter().map(BatteryName::as_str).collect();
        url.query_pairs_mut()
            .append_pair("battery", &names.join(","));
    }
    Ok(url)
}

/// Takes one message into the fleet.
///
/// # Errors
/// The socket is closed; the text has the reason.
async fn hear(socket: &mut Socket, fleet: &mut Fleet) -> Result<()> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => return fleet.take(&text),
            Some(Ok(Message::Close(Some(frame)))) => bail!("{}", frame.reason),
            Some(Ok(Message::Close(None))) | None => bail!("the socket was closed"),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error).context("the socket failed"),
        }
    }
}

/// Returns the services' heartbeats; none where the twin does not tell.
async fn ask_services(hub: &Hub) -> Vec<Heartbeat> {
    hub.services().await.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_where_the_hub_is() {
        let hub: Url = "http://cells.example:8443/".parse().unwrap();
        let names = ["a".parse().unwrap(), "b".parse().unwrap()];
        let url = address(&hub, &names).unwrap();
        assert_eq!(url.as_str(), "ws://cells.example:8443/ws?battery=a%2Cb");
    }
}
