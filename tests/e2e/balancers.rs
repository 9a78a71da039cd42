//! Real load balancers in front of the gateway, HAProxy and nginx, with the settings on the page OPERATING.md.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;

use hotgate_tests::{Authority, Client, Gateway, Setup, Stream, Upgrade, eventually, free_ports, skip, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::{Child, Command};

/// The addresses on the page.
const GATEWAY: &str = "10.0.0.5:1234";
const BALANCER: &str = "10.0.0.2";

const NAME: &str = "push.example.com";

/// Gives the WebSocket port the certificate of this name.
const TLS: &str = "[[websocket.tls]]\ncertificate = \"push.pem\"\nkey = \"push.key\"\n";

/// Counts connections without a correct header.
const REFUSED: &str = "hotgate_handshakes_refused_total{reason=\"proxy\"}";

/// Where Debian puts nginx's `stream` module. Other packages have it built in.
const NGINX_MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// The block of the page in this language that contains these words.
fn recipe(language: &str, words: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/OPERATING.md");
    let page = std::fs::read_to_string(page).expect("a page");
    let fence = format!("```{language}\n");
    let blocks = page.split(&fence).skip(1).filter_map(|rest| rest.split_once("```"));
    let found = blocks.map(|(block, _)| block).find(|block| block.contains(words));
    found.unwrap_or_else(|| panic!("host/OPERATING.md has no {language} with {words}")).to_owned()
}

/// Replaces words that must be there.
fn replace(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no {from} in {text}");
    text.replace(from, to)
}

/// Starts a gateway with the settings on the page. `config` follows them.
async fn gateway(authority: &Authority, config: &str) -> Gateway {
    let page = replace(&recipe("toml", "proxy_protocol"), BALANCER, "127.0.0.1");
    Setup::new(&(page + config)).identity("push", &authority.issue(&[NAME])).start().await
}

/// A running load balancer. Dropping this value kills the process.
struct Balancer {
    process: Child,
    /// Its port on 127.0.0.1 and on ::1.
    port: u16,
}

impl Balancer {
    /// HAProxy with the settings on the page. `option` stands in the place of `send-proxy-v2`.
    async fn haproxy(gateway: &Gateway, option: &str) -> Option<Self> {
        let [address] = free_ports();
        let port = address.port();
        let page = recipe("haproxy", GATEWAY);
        let page = replace(&page, "bind :443", &format!("bind 127.0.0.1:{port},[::1]:{port}"));
        let page = replace(&page, "send-proxy-v2", option);
        let file = file(gateway, "haproxy.cfg", &page);
        Self::start(Command::new("haproxy").args(["-db", "-f", &file]), port).await
    }

    /// nginx with the settings on the page. `option` stands in the place of `proxy_protocol on;`.
    async fn nginx(gateway: &Gateway, option: &str) -> Option<Self> {
        let [address] = free_ports();
        let port = address.port();
        let page = recipe("nginx", GATEWAY);
        let page = replace(&page, "listen 443;", &format!("listen 127.0.0.1:{port}; listen [::1]:{port};"));
        let page = replace(&page, "proxy_protocol on;", option);
        let module = match Path::new(NGINX_MODULE).exists() {
            true => format!("load_module {NGINX_MODULE};\n"),
            false => String::new(),
        };
        // One process, so that killing it is enough.
        let head = "daemon off; master_process off; pid nginx.pid; error_log stderr; events {}\n";
        let file = file(gateway, "nginx.conf", &format!("{module}{head}{page}"));
        let prefix = gateway.folder().to_str().expect("a path in UTF-8");
        Self::start(Command::new("nginx").args(["-p", prefix, "-e", "stderr", "-c", &file]), port).await
    }

    /// Starts the program and waits until it listens. Returns `None` if the test must be skipped.
    async fn start(command: &mut Command, port: u16) -> Option<Self> {
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        // Debian has both where only root looks.
        let paths = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
        command.env("PATH", paths).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let Ok(process) = command.kill_on_drop(true).spawn() else {
            skip(&format!("there is no {program}"));
            return None;
        };
        let mut balancer = Self { process, port };
        for address in balancer.addresses() {
            eventually("the load balancer listens", async || {
                if balancer.process.try_wait().expect("a child").is_some() {
                    let mut log = String::new();
                    _ = balancer.process.stderr.take().expect("piped").read_to_string(&mut log).await;
                    panic!("{program} has ended: {log}");
                }
                TcpStream::connect(address).await.is_ok()
            })
            .await;
        }
        Some(balancer)
    }

    fn addresses(&self) -> [SocketAddr; 2] {
        [([127, 0, 0, 1], self.port).into(), (Ipv6Addr::LOCALHOST, self.port).into()]
    }

    /// Connects from an address that is not the load balancer's own, or by IPv6.
    async fn connect(&self, address: SocketAddr) -> TcpStream {
        let socket = match address {
            SocketAddr::V4(_) => {
                let socket = TcpSocket::new_v4().expect("a socket");
                socket.bind(([127, 0, 0, 9], 0).into()).expect("an address of the loopback");
                socket
            }
            SocketAddr::V6(_) => TcpSocket::new_v6().expect("a socket"),
        };
        within("connecting", socket.connect(address)).await.expect("the port is open")
    }

    /// Checks that the gateway knows clients by their own addresses.
    async fn names_clients(&self, gateway: &Gateway, tls: Option<&Authority>) {
        for (number, address) in self.addresses().into_iter().enumerate() {
            let stream = self.connect(address).await;
            let own = stream.local_addr().expect("an address");
            let stream = match tls {
                Some(authority) => Stream::tls_over(stream, NAME, authority.client(None)).await.expect("a handshake"),
                None => Stream::Tcp(stream),
            };
            let mut client = Client::open(stream, &Upgrade::default().encode()).await.expect("an upgrade");
            client.expect("HeartBeat").await;
            client.send(format!(r#"{{"id":"client {number}"}}"#)).await;
            client.expect("Link_successful").await;
            let seen = gateway.admin().await.json(&format!("GET /connections?uid=client%20{number}")).await;
            assert_eq!(seen["connections"][0]["address"], own.to_string(), "{seen}");
        }
        assert_eq!(gateway.admin().await.metric(REFUSED).await, 0.0);
    }

    /// Checks that the gateway refuses clients of this load balancer, which sends no header.
    async fn is_refused(&self, gateway: &Gateway) {
        let before = gateway.admin().await.metric(REFUSED).await;
        is_closed(self.connect(self.addresses()[0]).await).await;
        assert_eq!(gateway.admin().await.metric(REFUSED).await, before + 1.0);
        gateway.logged(|line| line.message() == "client refused" && line.says("websocket.proxy_protocol")).await;
    }
}

/// Asks for an upgrade, and checks that the connection is closed without an answer.
async fn is_closed(mut stream: TcpStream) {
    stream.write_all(&Upgrade::default().encode()).await.expect("a request");
    let mut answer = Vec::new();
    // A reset is an end, too.
    _ = within("the end", stream.read_to_end(&mut answer)).await;
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
}

/// Puts a file with settings of a load balancer into the gateway's folder. Returns its path.
fn file(gateway: &Gateway, name: &str, page: &str) -> String {
    let path = gateway.folder().join(name);
    std::fs::write(&path, replace(page, GATEWAY, &gateway.websocket.to_string())).expect("a writable folder");
    path.to_str().expect("a path in UTF-8").to_owned()
}

#[tokio::test]
async fn haproxy_names_its_clients() {
    let authority = Authority::new();
    for option in ["send-proxy-v2", "send-proxy"] {
        for (tls, config) in [(None, ""), (Some(&authority), TLS)] {
            let gateway = gateway(&authority, config).await;
            let Some(haproxy) = Balancer::haproxy(&gateway, option).await else { return };
            haproxy.names_clients(&gateway, tls).await;
        }
    }
}

#[tokio::test]
async fn nginx_names_its_clients() {
    let authority = Authority::new();
    for (tls, config) in [(None, ""), (Some(&authority), TLS)] {
        let gateway = gateway(&authority, config).await;
        let Some(nginx) = Balancer::nginx(&gateway, "proxy_protocol on;").await else { return };
        nginx.names_clients(&gateway, tls).await;
    }
}

#[tokio::test]
async fn who_sends_no_header_is_refused() {
    let gateway = gateway(&Authority::new(), "").await;
    // From the address of the load balancer, but not through it.
    is_closed(TcpStream::connect(gateway.websocket).await.expect("the port is open")).await;
    assert_eq!(gateway.admin().await.metric(REFUSED).await, 1.0);
    if let Some(haproxy) = Balancer::haproxy(&gateway, "").await {
        haproxy.is_refused(&gateway).await;
    }
    if let Some(nginx) = Balancer::nginx(&gateway, "").await {
        nginx.is_refused(&gateway).await;
    }
}

#[tokio::test]
async fn health_checks_of_haproxy_are_no_clients() {
    for option in ["send-proxy-v2", "send-proxy"] {
        let gateway = gateway(&Authority::new(), "").await;
        let Some(_haproxy) = Balancer::haproxy(&gateway, option).await else { return };
        let admin = gateway.admin().await;
        let checks = async || admin.metric("hotgate_handshakes_abandoned_total").await;
        let before = checks().await;
        eventually("two health checks", async || checks().await >= before + 2.0).await;
        assert_eq!(admin.metric(REFUSED).await, 0.0);
        let warnings = gateway.log().since(Default::default());
        assert!(warnings.iter().all(|line| line.message() != "client refused"), "{warnings:?}");
    }
}
