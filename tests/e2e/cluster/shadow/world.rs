//! The processes: NATS servers, proxies and gateways, with one place for each.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Mutex as Lock;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hotgate_tests::{Admin, Component, Gateway, NatsCluster, NatsSetup, Proxy, Setup};
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::clients::GROUP;
use super::random::Random;
use super::record::Record;
use crate::cluster::{join, table};

/// The number of NATS servers.
pub(super) const SERVERS: usize = 3;

/// The number of gateways.
pub(super) const GATEWAYS: usize = 4;

/// A login waits for all other gateways that live, so that whoever has its reply is known everywhere, also on a busy
/// machine. The default may be too short there.
const CONFIG: &str = "confirm = \"10s\"\nnode = NODE\n[drain]\nspread = \"500ms\"\n[heartbeat]\ntimeout = \"24h\"";

/// The longest time from the end of all faults until all gateways agree: they find NATS and each other again, give up
/// what has died, and compare their rows. 3 s on a machine of its own.
const AGREED: Duration = Duration::from_secs(15);

/// Where a gateway is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) websocket: SocketAddr,
    pub(super) text: SocketAddr,
    pub(super) api: Admin,
}

/// Where the gateways are that run.
#[derive(Debug, Default)]
pub(super) struct Places(Lock<[Option<Place>; GATEWAYS]>);

impl Places {
    /// Any gateway, with its number, unless that one does not run.
    pub(super) fn any(&self, random: &mut Random) -> Option<(usize, Place)> {
        let number = random.below(GATEWAYS);
        Some((number, self.get(number)?))
    }

    pub(super) fn get(&self, number: usize) -> Option<Place> {
        self.0.lock().expect("not poisoned")[number].clone()
    }

    pub(super) fn set(&self, number: usize, place: Option<Place>) {
        self.0.lock().expect("not poisoned")[number] = place;
    }
}

impl Place {
    pub(super) async fn of(gateway: &Gateway) -> Self {
        Self { websocket: gateway.websocket, text: gateway.text, api: gateway.api().await }
    }

    /// The number of connections that each of these uids has, as this gateway says, in words.
    async fn online(&self, uids: &[String]) -> String {
        let query = uids.iter().map(|uid| format!("uid={uid}")).collect::<Vec<_>>().join("&");
        self.api.json(&format!("GET /v1/online?{query}")).await["online"].to_string()
    }

    /// The uids in the group, as this gateway says, in words.
    async fn members(&self) -> String {
        let answer = self.api.json(&format!("GET /v1/members?group={GROUP}")).await;
        let mut uids: Vec<String> = serde_json::from_value(answer["uids"].clone()).expect("a list");
        uids.sort();
        uids.join(" ")
    }

    /// Returns `true` if this gateway knows of no connection of a uid.
    pub(super) async fn misses(&self, uid: &str) -> bool {
        self.online(&[uid.to_owned()]).await == "{}"
    }
}

/// All processes.
#[derive(Debug)]
pub(super) struct World {
    pub(super) nats: Mutex<NatsCluster>,
    /// The ways of each gateway to each NATS server.
    pub(super) proxies: Vec<Vec<Proxy>>,
    pub(super) gateways: Vec<Mutex<Gateway>>,
    /// Uids that had a connection on a gateway when it was killed, and came back nowhere.
    pub(super) ghosts: Lock<Vec<String>>,
}

impl World {
    /// Starts everything. `None` if the test must be skipped.
    pub(super) async fn start() -> Option<Self> {
        // As patient as in production: what was held back for seconds still arrives.
        let nats = NatsSetup::new().and("ping_interval: \"20s\"").cluster(SERVERS).await?;
        let mut proxies = Vec::new();
        for _ in 0..GATEWAYS {
            proxies.push(join_all(nats.servers.iter().map(|server| Proxy::start(server.address()))).await);
        }
        let setup = |number: usize| {
            let mut urls: Vec<_> = proxies[number].iter().map(Proxy::url).collect();
            // Not all begin with the same server.
            urls.rotate_left(number % SERVERS);
            let config = CONFIG.replace("NODE", &(number + 1).to_string());
            Setup::plugin(&Component::fixture(""), "").and(&table(&urls, &config))
        };
        let gateways = join::<GATEWAYS>(std::array::from_fn(setup)).await.into_iter().map(Mutex::new).collect();
        Some(Self { nats: Mutex::new(nats), proxies, gateways, ghosts: Lock::default() })
    }

    pub(super) async fn places(&self) -> Places {
        let places = Places::default();
        for (number, gateway) in self.gateways.iter().enumerate() {
            places.set(number, Some(Place::of(&*gateway.lock().await).await));
        }
        places
    }

    /// Waits until each gateway counts exactly the connections that clients have. Returns how long it took, or what
    /// the gateways say that is wrong.
    pub(super) async fn agrees(&self, places: &Places, record: &Record, uids: usize) -> Result<Duration, String> {
        let begin = Instant::now();
        let ghosts = self.ghosts.lock().expect("not poisoned").clone();
        let asked: Vec<_> = (0..uids).map(|uid| format!("u{uid}")).chain(ghosts).collect();
        loop {
            let (counts, members) = record.connected();
            let counts = counts.into_iter().map(|(uid, count)| (format!("u{uid}"), count.into()));
            let counts = serde_json::Value::Object(counts.collect()).to_string();
            let mut members: Vec<_> = members.into_iter().map(|uid| format!("u{uid}")).collect();
            members.sort();
            let members = members.join(" ");
            let mut differences = String::new();
            for number in 0..GATEWAYS {
                let place = places.get(number).expect("all run");
                let seen = [place.online(&asked).await, place.members().await];
                for (seen, real) in seen.into_iter().zip([&counts, &members]).filter(|(seen, real)| seen != *real) {
                    _ = write!(differences, "\ngateway {number} says\n    {seen}, not\n    {real}");
                }
            }
            match begin.elapsed() {
                elapsed if differences.is_empty() => return Ok(elapsed),
                elapsed if elapsed > AGREED => return Err(differences),
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
    }
}
