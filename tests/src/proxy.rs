//! A TCP proxy that cuts connections badly: the client is gone in the middle of a frame, and the
//! hub goes on hearing what was on the way.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Bytes on the way when a connection is cut.
const ON_THE_WAY: usize = 16 << 10;
/// How slowly they arrive: so many bytes at a time.
const DRIBBLE: (usize, Duration) = (512, Duration::from_millis(5));

/// A proxy before one hub; it ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    cuts: watch::Sender<u64>,
    _running: JoinSet<()>,
}

impl Proxy {
    /// Listens on a port of its own.
    ///
    /// # Errors
    /// There is no port.
    pub async fn before(hub: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let cuts = watch::Sender::new(0);
        let mut running = JoinSet::new();
        let cut = cuts.subscribe();
        running.spawn(async move {
            let mut links = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                // A cut before this connection is not one of it.
                let mut cut = cut.clone();
                cut.mark_unchanged();
                links.spawn(link(client, hub, cut));
            }
        });
        Ok(Self {
            address,
            cuts,
            _running: running,
        })
    }

    /// Returns the URL of uploads through the proxy.
    pub fn upload_url(&self) -> String {
        format!("ws://{}/db/upload", self.address)
    }

    /// Cuts all connections that are open now.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

/// Joins a client and the hub until one of them ends or the connection is cut.
async fn link(mut client: TcpStream, hub: SocketAddr, mut cut: watch::Receiver<u64>) {
    let Ok(mut server) = TcpStream::connect(hub).await else {
        return;
    };
    let mut on_the_way = vec![0; ON_THE_WAY];
    let left = until_cut(&mut client, &mut server, &mut cut, &mut on_the_way).await;
    let Some(left) = left else { return };
    drop(client);
    for bytes in on_the_way.get(..left).unwrap_or_default().chunks(DRIBBLE.0) {
        if server.write_all(bytes).await.is_err() {
            return;
        }
        tokio::time::sleep(DRIBBLE.1).await;
    }
    // Held open: the hub must find out by itself, or by the next connection of the session.
    let mut rest = Vec::new();
    let _ended_by_the_hub = server.read_to_end(&mut rest).await;
}

/// Returns how many bytes were on the way when the connection was cut; none if it ended before.
async fn until_cut(
    client: &mut TcpStream,
    server: &mut TcpStream,
    cut: &mut watch::Receiver<u64>,
    on_the_way: &mut [u8],
) -> Option<usize> {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let answers = copy(&mut from_server, &mut to_client);
    tokio::pin!(answers);
    loop {
        tokio::select! {
            biased;
            _ = cut.changed() => {
                return Some(from_client.try_read(on_the_way).unwrap_or_default());
            }
            _ended = &mut answers => return None,
            read = from_client.read(on_the_way) => {
                let read = read.ok().filter(|read| *read > 0)?;
                to_server.write_all(on_the_way.get(..read)?).await.ok()?;
            }
        }
    }
}
