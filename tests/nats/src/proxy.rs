//! A TCP proxy that disturbs what passes through it. It needs no rights of root.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

/// The most pieces of one direction that wait.
const DELAYED: usize = 256;

/// What happens to bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// They pass.
    Pass,
    /// They pass this much later.
    Delay(Duration),
    /// They are held back until the way is open again, as in a network that loses packets for a while.
    Hold,
    /// They are thrown away. The connection is of no use afterwards.
    Swallow,
}

/// What happens to connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rules {
    to_server: Way,
    to_client: Way,
    accepts: bool,
    /// Connections that were opened under a smaller number are closed.
    cuts: u64,
    /// Connections that were opened under a smaller number lose their server; the client is not told.
    losses: u64,
}

/// A proxy in front of a server. Dropping it closes all its connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    rules: watch::Sender<Rules>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy that lets all bytes pass.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let rules = Rules { to_server: Way::Pass, to_client: Way::Pass, accepts: true, cuts: 0, losses: 0 };
        let (rules, watched) = watch::channel(rules);
        Self { address, rules, task: tokio::spawn(serve(listener, server, watched)) }
    }

    /// The address for clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address for clients as a URL without TLS.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// Sets what happens in each direction.
    pub fn set(&self, to_server: Way, to_client: Way) {
        self.rules.send_modify(|rules| (rules.to_server, rules.to_client) = (to_server, to_client));
    }

    /// Lets all bytes pass, and new connections too.
    pub fn pass(&self) {
        self.set(Way::Pass, Way::Pass);
        self.rules.send_modify(|rules| rules.accepts = true);
    }

    /// Delays the bytes of both directions.
    pub fn delay(&self, time: Duration) {
        self.set(Way::Delay(time), Way::Delay(time));
    }

    /// Holds the bytes of both directions back, those of new connections too.
    pub fn hold(&self) {
        self.set(Way::Hold, Way::Hold);
    }

    /// Makes a black hole of both directions.
    pub fn swallow(&self) {
        self.set(Way::Swallow, Way::Swallow);
    }

    /// Closes all connections. New ones are accepted.
    pub fn cut(&self) {
        self.rules.send_modify(|rules| rules.cuts += 1);
    }

    /// Closes all connections, and new ones at once.
    pub fn refuse(&self) {
        self.rules.send_modify(|rules| (rules.accepts, rules.cuts) = (false, rules.cuts + 1));
    }

    /// Closes all connections to the server. The clients' stay open and silent.
    pub fn lose_server(&self) {
        self.rules.send_modify(|rules| rules.losses += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Accepts connections. Ends them all when it ends.
async fn serve(listener: TcpListener, server: SocketAddr, mut rules: watch::Receiver<Rules>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                if rules.borrow_and_update().accepts {
                    connections.spawn(connection(client, server, rules.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Serves one connection until it is cut or one side closes it.
async fn connection(client: TcpStream, server: SocketAddr, mut rules: watch::Receiver<Rules>) -> io::Result<()> {
    let born = *rules.borrow();
    let server = TcpStream::connect(server).await?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let (mut client_reader, mut client_writer) = client.into_split();
    let (mut server_reader, mut server_writer) = server.into_split();
    let mut cut = rules.clone();
    let is_cut = async {
        _ = cut.wait_for(|rules| rules.cuts != born.cuts).await;
    };
    tokio::pin!(is_cut);
    tokio::select! {
        done = pump(&mut client_reader, &mut server_writer, rules.clone(), |rules| rules.to_server) => return done,
        done = pump(&mut server_reader, &mut client_writer, rules.clone(), |rules| rules.to_client) => return done,
        () = &mut is_cut => return Ok(()),
        _ = rules.wait_for(|rules| rules.losses != born.losses) => {}
    }
    drop((server_reader, server_writer));
    let mut nowhere = tokio::io::sink();
    tokio::select! {
        _ = tokio::io::copy(&mut client_reader, &mut nowhere) => {}
        () = is_cut => {}
    }
    Ok(())
}

/// Carries the bytes of one direction.
async fn pump(
    reader: &mut OwnedReadHalf,
    writer: &mut OwnedWriteHalf,
    rules: watch::Receiver<Rules>,
    way: impl Fn(&Rules) -> Way + Copy,
) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel(DELAYED);
    // What was read before the end is still written.
    tokio::try_join!(take(reader, sender, rules.clone(), way), give(writer, receiver, rules, way)).map(|_| ())
}

/// Reads bytes, and says when they are to be written.
async fn take(
    reader: &mut OwnedReadHalf,
    sender: mpsc::Sender<(Instant, Vec<u8>)>,
    mut rules: watch::Receiver<Rules>,
    way: impl Fn(&Rules) -> Way,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        _ = rules.wait_for(|rules| way(rules) != Way::Hold).await;
        let length = tokio::select! {
            biased;
            // The way is closed before anything has come.
            _ = rules.wait_for(|rules| way(rules) == Way::Hold) => continue,
            length = reader.read(&mut buffer) => length?,
        };
        if length == 0 {
            return Ok(());
        }
        let now = way(&rules.borrow());
        let due = match now {
            Way::Swallow => continue,
            Way::Delay(time) => Instant::now() + time,
            Way::Pass | Way::Hold => Instant::now(),
        };
        if sender.send((due, buffer[..length].to_vec())).await.is_err() {
            return Ok(());
        }
    }
}

/// Writes bytes when they are due and the way is open.
async fn give(
    writer: &mut OwnedWriteHalf,
    mut receiver: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut rules: watch::Receiver<Rules>,
    way: impl Fn(&Rules) -> Way,
) -> io::Result<()> {
    while let Some((due, bytes)) = receiver.recv().await {
        sleep_until(due).await;
        _ = rules.wait_for(|rules| way(rules) != Way::Hold).await;
        writer.write_all(&bytes).await?;
    }
    Ok(())
}
