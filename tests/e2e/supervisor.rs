//! What a supervisor such as systemd is told (sd_notify), over a real socket.

use std::path::Path;

use hotgate_tests::{Gateway, Setup, within};
use tokio::net::UnixDatagram;

/// The socket of a supervisor.
struct Supervisor(UnixDatagram);

impl Supervisor {
    /// Listens in this folder, and gives the socket to a gateway that will be started.
    fn new(folder: &Path, setup: Setup) -> (Self, Setup) {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        (Self(socket), setup.environment("NOTIFY_SOCKET", path.to_str().expect("UTF-8")))
    }

    async fn next(&self) -> String {
        let mut message = vec![0; 4096];
        let length = within("a message to the supervisor", self.0.recv(&mut message)).await.expect("received");
        message.truncate(length);
        String::from_utf8(message).expect("text").trim_end().to_owned()
    }

    /// The next message that begins with this word. Others are skipped, but not a `READY=1`.
    async fn expect(&self, word: &str) -> String {
        loop {
            match self.next().await {
                message if message.starts_with(word) => return message,
                message => assert_ne!(message, "READY=1", "before {word}"),
            }
        }
    }
}

#[tokio::test]
async fn a_supervisor_is_told_of_start_reload_and_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let (supervisor, setup) = Supervisor::new(folder.path(), Setup::new("shutdown_grace = \"20s\""));
    let mut gateway = setup.start().await;
    assert_eq!(supervisor.next().await, "STATUS=Loading the plugins");
    assert_eq!(supervisor.next().await, "READY=1");
    let anna = gateway.login("anna").await;
    supervisor.expect("STATUS=Serving ").await;

    gateway.signal("HUP");
    let reloading = supervisor.expect("RELOADING=1").await;
    let at = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("the time");
    let uptime = std::fs::read_to_string("/proc/uptime").expect("Linux");
    let uptime: f64 = uptime.split(' ').next().and_then(|seconds| seconds.parse().ok()).expect("seconds");
    let at = at.parse::<f64>().expect("microseconds") / 1e6;
    assert!((-1.0..60.0).contains(&(uptime - at)), "{at} at {uptime}");
    supervisor.expect("READY=1").await;

    gateway.signal("TERM");
    supervisor.expect("STOPPING=1").await;
    let micros = supervisor.expect("EXTEND_TIMEOUT_USEC=").await;
    let micros: u64 = micros["EXTEND_TIMEOUT_USEC=".len()..].parse().expect("a number");
    assert!((20_000_000..60_000_000).contains(&micros), "{micros}");
    drop(anna);
    assert_eq!(gateway.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_gateway_that_cannot_start_is_never_ready() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = Setup::new("[router]\nfile = \"router.wasm\"").bytes("router.wasm", b"no component");
    let (supervisor, setup) = Supervisor::new(folder.path(), setup);
    let listen = ["--websocket-listen", "127.0.0.1:0", "--text-listen", "127.0.0.1:0"];
    let finished = setup.run(&[&["--config", "hotgate.toml"] as &[&str], &listen].concat()).await;
    assert_eq!(finished.code, Some(78), "{finished:?}");
    let mut message = [0; 4096];
    while let Ok(length) = supervisor.0.try_recv(&mut message) {
        assert!(!message[..length].starts_with(b"READY"));
    }
}

#[tokio::test]
async fn signs_of_life_come_twice_in_the_time_that_the_supervisor_expects() {
    let folder = tempfile::tempdir().expect("a folder");
    let (supervisor, setup) = Supervisor::new(folder.path(), Setup::new(""));
    let gateway = setup.environment("WATCHDOG_USEC", "2000000").start().await;
    supervisor.expect("READY=1").await;
    supervisor.expect("WATCHDOG=1").await;
    let begin = std::time::Instant::now();
    for _ in 0..3 {
        supervisor.expect("WATCHDOG=1").await;
    }
    let took = begin.elapsed().as_secs_f64();
    assert!((2.0..6.0).contains(&took), "{took} s for three signs");
    drop(gateway);
}

#[tokio::test]
async fn a_supervisor_that_does_not_read_holds_nothing_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let (supervisor, setup) = Supervisor::new(folder.path(), Setup::new(""));
    // So many signs of life that the socket is full at once.
    let mut gateway = setup.environment("WATCHDOG_USEC", "200").start().await;
    let mut anna = gateway.login("anna").await;
    assert!(gateway.reaches("anna").await);
    anna.expect(r#"{"uid":"anna"}"#).await;
    gateway.signal("TERM");
    anna.expect_close(1001).await;
    assert_eq!(gateway.exit_code().await, Some(0));
    drop(supervisor);
}

#[tokio::test]
async fn without_a_supervisor_at_its_socket_the_gateway_serves() {
    let gateway: Gateway = Setup::new("").environment("NOTIFY_SOCKET", "/nowhere/notify").start().await;
    gateway.login("anna").await;
    let line = gateway.logged(|line| line.message().contains("cannot reach the supervisor")).await;
    assert!(!line.get("error").is_empty(), "{line:?}");
}
