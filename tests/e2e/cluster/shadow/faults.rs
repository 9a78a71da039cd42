//! What goes wrong, on purpose.

use std::time::Duration;

use hotgate_tests::{Client, Gateway, Proxy, Upgrade, Way};
use tokio::time::{Instant, sleep, sleep_until};

use super::checker::UNKNOWN;
use super::clients::{Crowd, GROUP};
use super::random::Random;
use super::record::Kind;
use super::world::{GATEWAYS, Place, SERVERS, World};

/// After this time, nobody may count connections of a gateway that was killed. 3.5 s on a machine of its own.
const NO_GHOST: Duration = Duration::from_millis(3_500 + 2_000);

/// Something that goes wrong for a while. Gateways and NATS servers are numbers.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// All connections of a gateway to NATS are closed.
    Cut(usize),
    /// The same, and new ones are closed, too.
    Refuse(usize, Duration),
    /// What passes on the way to NATS, or back, or both, is lost.
    BlackHole(usize, [bool; 2], Duration),
    /// What passes is held back, and arrives afterwards.
    Hold(usize, [bool; 2], Duration),
    /// Everything arrives later, by the first time.
    Delay(usize, Duration, Duration),
    /// The connections to NATS servers are gone, and the gateway is not told.
    HalfOpen(usize),
    /// A gateway is killed, and starts again after this time.
    Kill(usize, Duration),
    /// A gateway stands still.
    Stop(usize, Duration),
    /// A gateway drains and starts again.
    Restart(usize),
    /// A NATS server is killed, and starts again after this time.
    KillNats(usize, Duration),
    /// A NATS server stands still.
    StopNats(usize, Duration),
    /// All clients leave at once and come back.
    Storm,
    /// Gateways drain and start again, one after the other.
    RollGateways,
    /// NATS servers are started again, one after the other.
    RollNats,
}

impl Fault {
    /// One or two faults that happen at the same time, in different places.
    pub(super) fn some(random: &mut Random) -> Vec<Self> {
        let first = Self::any(random);
        match random.below(3) {
            0 => {
                let second = Self::any(random);
                if first.place() == second.place() { vec![first] } else { vec![first, second] }
            }
            _ => vec![first],
        }
    }

    fn any(random: &mut Random) -> Self {
        let (gateway, server) = (random.below(GATEWAYS), random.below(SERVERS));
        // Some are over before anybody notices, others after everybody has been given up.
        let time = random.time(100..7_000);
        let ways = [[true, true], [true, false], [false, true]][random.below(3)];
        match random.below(40) {
            0..4 => Self::Cut(gateway),
            4..7 => Self::Refuse(gateway, time),
            7..10 => Self::BlackHole(gateway, ways, time),
            10..14 => Self::Hold(gateway, ways, time),
            14..16 => Self::Delay(gateway, random.time(5..150), time),
            16..19 => Self::HalfOpen(gateway),
            19..24 => Self::Kill(gateway, time),
            24..29 => Self::Stop(gateway, time),
            29..31 => Self::Restart(gateway),
            31..34 => Self::KillNats(server, time),
            34..37 => Self::StopNats(server, time),
            37 => Self::Storm,
            38 => Self::RollGateways,
            _ => Self::RollNats,
        }
    }

    /// What is disturbed: two faults of one place would mix.
    fn place(&self) -> (&str, usize) {
        match *self {
            Self::Cut(gateway) | Self::Refuse(gateway, _) | Self::BlackHole(gateway, ..) | Self::Hold(gateway, ..) => {
                ("gateway", gateway)
            }
            Self::Delay(gateway, ..) | Self::HalfOpen(gateway) => ("gateway", gateway),
            Self::Kill(gateway, _) | Self::Stop(gateway, _) | Self::Restart(gateway) => ("gateway", gateway),
            Self::KillNats(..) | Self::StopNats(..) | Self::RollNats => ("nats", 0),
            Self::Storm => ("clients", 0),
            Self::RollGateways => ("gateway", GATEWAYS),
        }
    }

    /// Lets it happen, and waits until it is over.
    pub(super) async fn happen(self, world: &World, crowd: &Crowd) {
        match self {
            Self::Cut(gateway) => disturb(world, crowd, gateway, Duration::from_millis(10), Proxy::cut).await,
            Self::HalfOpen(gateway) => {
                // Until the gateway notices: it waits for 2 s.
                disturb(world, crowd, gateway, Duration::from_secs(3), Proxy::lose_server).await;
            }
            Self::Refuse(gateway, time) => disturb(world, crowd, gateway, time, Proxy::refuse).await,
            Self::Delay(gateway, late, time) => {
                disturb_as(Kind::Slow, world, crowd, gateway, time, |proxy| proxy.delay(late)).await;
            }
            Self::Hold(gateway, ways, time) => {
                let [there, back] = ways.map(|is_held| if is_held { Way::Hold } else { Way::Pass });
                disturb(world, crowd, gateway, time, |proxy| proxy.set(there, back)).await;
            }
            Self::BlackHole(gateway, ways, time) => {
                let [there, back] = ways.map(|is_lost| if is_lost { Way::Swallow } else { Way::Pass });
                disturb(world, crowd, gateway, time, |proxy| proxy.set(there, back)).await;
                // TCP would not go on after a gap.
                disturb(world, crowd, gateway, Duration::ZERO, Proxy::cut).await;
            }
            Self::Kill(gateway, time) => kill(world, crowd, gateway, time).await,
            Self::Stop(gateway, time) => {
                crowd.record.trouble(&[gateway], Kind::Stopped);
                let process = world.gateways[gateway].lock().await;
                process.signal("STOP");
                sleep(time).await;
                process.signal("CONT");
                crowd.record.healed(&[gateway], Kind::Stopped);
            }
            Self::Restart(gateway) => restart(world, crowd, gateway).await,
            Self::KillNats(server, time) => kill_nats(world, crowd, server, time).await,
            Self::StopNats(server, time) => {
                crowd.record.trouble(&EACH, Kind::Link);
                let nats = world.nats.lock().await;
                nats.servers[server].freeze().await;
                sleep(time).await;
                nats.servers[server].thaw();
                nats.complete().await;
                crowd.record.healed(&EACH, Kind::Link);
            }
            Self::Storm => crowd.storm(),
            Self::RollGateways => {
                for gateway in EACH {
                    restart(world, crowd, gateway).await;
                }
            }
            Self::RollNats => {
                for server in 0..SERVERS {
                    kill_nats(world, crowd, server, Duration::from_millis(100)).await;
                }
            }
        }
    }
}

const EACH: [usize; GATEWAYS] = [0, 1, 2, 3];

/// Disturbs all ways of a gateway to NATS for so long.
async fn disturb(world: &World, crowd: &Crowd, gateway: usize, time: Duration, how: impl Fn(&Proxy)) {
    disturb_as(Kind::Link, world, crowd, gateway, time, how).await;
}

async fn disturb_as(kind: Kind, world: &World, crowd: &Crowd, gateway: usize, time: Duration, how: impl Fn(&Proxy)) {
    crowd.record.trouble(&[gateway], kind);
    world.proxies[gateway].iter().for_each(how);
    sleep(time).await;
    world.proxies[gateway].iter().for_each(Proxy::pass);
    crowd.record.healed(&[gateway], kind);
}

/// Kills a gateway and starts it again. Its connections must not be counted anywhere soon afterwards.
async fn kill(world: &World, crowd: &Crowd, gateway: usize, time: Duration) {
    let mut process = world.gateways[gateway].lock().await;
    let uid = format!("ghost-{}", crowd.record.stream());
    let (number, ghost) = haunt(crowd, gateway, &uid).await;
    crowd.record.trouble(&[gateway], Kind::Stopped);
    crowd.places.set(gateway, None);
    process.signal("KILL");
    let (killed, begin) = (Instant::now(), crowd.record.now());
    process.exit_code().await;
    crowd.record.connection(number, |connection, now| connection.ended = Some(now));
    drop(ghost);
    world.ghosts.lock().expect("not poisoned").push(uid.clone());
    let starting = async {
        sleep(time).await;
        start_again(crowd, &mut process, gateway).await;
    };
    let looking = async {
        sleep_until(killed + NO_GHOST).await;
        let now = crowd.record.now();
        for other in EACH {
            // Who was in trouble itself may have heard of it later.
            let begin = begin.saturating_sub(NO_GHOST);
            let is_sound = !crowd.record.events().is_in_trouble(other, &UNKNOWN, begin, now);
            if let Some(place) = crowd.places.get(other).filter(|_| is_sound) {
                let is_gone = place.misses(&uid).await;
                assert!(
                    is_gone,
                    "gateway {other} counts a ghost of {gateway}, {:?} after it was killed",
                    killed.elapsed()
                );
            }
        }
    };
    tokio::join!(starting, looking);
}

/// Logs in a client that never comes back. Returns its number in the record: messages to everyone reach it, too.
async fn haunt(crowd: &Crowd, gateway: usize, uid: &str) -> (u64, Client) {
    let place = crowd.places.get(gateway).expect("it runs");
    let mut client = Client::connect(place.websocket, &Upgrade::default()).await;
    client.text().await;
    let number = crowd.record.open(usize::MAX, gateway);
    crowd.record.connection(number, |connection, now| connection.joining = Some(now));
    client.send(format!("login {uid}")).await;
    client.text().await;
    client.send(format!("join {GROUP}")).await;
    (number, client)
}

async fn restart(world: &World, crowd: &Crowd, gateway: usize) {
    let mut process = world.gateways[gateway].lock().await;
    crowd.record.trouble(&[gateway], Kind::Stopped);
    process.signal("TERM");
    assert_eq!(process.exit_code().await, Some(0));
    crowd.places.set(gateway, None);
    start_again(crowd, &mut process, gateway).await;
}

async fn start_again(crowd: &Crowd, process: &mut Gateway, gateway: usize) {
    process.start_again().await;
    crowd.places.set(gateway, Some(Place::of(process).await));
    crowd.record.healed(&[gateway], Kind::Stopped);
}

async fn kill_nats(world: &World, crowd: &Crowd, server: usize, time: Duration) {
    crowd.record.trouble(&EACH, Kind::Link);
    let mut nats = world.nats.lock().await;
    nats.servers[server].kill();
    sleep(time).await;
    nats.servers[server].restart().await;
    nats.complete().await;
    crowd.record.healed(&EACH, Kind::Link);
}
