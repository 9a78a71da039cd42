//! Tests of sessions with the built-in plugins, on the runtime's clock. The clock is paused once the plugins are
//! loaded.

use std::cell::Cell;
use std::sync::Barrier;

use futures_util::FutureExt as _;
use tokio::time::{Instant, advance, pause, timeout};

use super::super::tests::{Client, Pipe, TEXT, context, handshake, socket, text};
use super::*;
use crate::base::message::ConnectionId;
use crate::config::DuplicateLogin;

thread_local! {
    /// What the wall clock shows when the runtime's clock is at the instant. A test has its thread for itself.
    static WALL_CLOCK: Cell<Option<(SystemTime, Instant)>> = const { Cell::new(None) };
}

/// The wall clock in tests. It goes on with the runtime's clock.
pub(super) fn wall_clock() -> SystemTime {
    let now = Instant::now();
    let (set_to, at) = WALL_CLOCK.get().unwrap_or_else(|| (SystemTime::now(), now));
    WALL_CLOCK.set(Some((set_to, at)));
    set_to + (now - at)
}

/// Sets the wall clock to a number of seconds since 1970.
fn set_wall_clock(seconds: u64) {
    WALL_CLOCK.set(Some((SystemTime::UNIX_EPOCH + Duration::from_secs(seconds), Instant::now())));
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The connection of a client that is authenticated.
struct Connection {
    context: Arc<Context>,
    client: Client,
    socket: Box<Socket<Pipe>>,
    link: Arc<Link>,
}

impl Connection {
    async fn new(router: &str) -> Self {
        let context = context(router).await;
        let (client, socket, link) = socket(1 << 16);
        pause();
        set_wall_clock(1_000_000);
        Self { context, client, socket, link }
    }

    /// Opens the session of the uid `u1`.
    async fn open(&self, expires_at: Option<u64>) -> Result<Session, End> {
        let reply = Some(text("welcome"));
        let identity = Identity { uid: "u1".into(), reply, attributes: Vec::new(), expires_at };
        let opened = Session::open(&self.context, &self.link, handshake(self.link.id), identity).await;
        opened.map(|(session, _)| session).map_err(|(end, _)| end)
    }

    /// Runs the session until it ends, but not for more than two days.
    async fn run(&mut self, session: &mut Session) -> End {
        run(session, &self.context, &mut self.socket).await
    }

    /// Pushes a message to the uid `u1`.
    fn push(&self, message: &str) -> bool {
        push(&self.context, message)
    }
}

async fn run(session: &mut Session, context: &Context, socket: &mut Socket<Pipe>) -> End {
    timeout(seconds(48 * 3600), session.run(context, socket)).await.expect("an end")
}

fn push(context: &Context, message: &str) -> bool {
    let to = command::Recipient::Uid("u1".into());
    let delivery = command::Delivery { to, message: text(message), otherwise: None };
    let commands = vec![command::Command::Deliver(delivery)];
    let mut reached = 0;
    let applied = delivery::apply_commands(&context.registry, commands, |_, outcome| reached += outcome.reached);
    _ = applied.now_or_never().expect("one recipient, and room");
    reached > 0
}

#[tokio::test]
async fn a_session_ends_with_4906_when_it_expires_and_not_before() {
    let mut connection = Connection::new("origin-router").await;
    // Longer than the longest sleep, so that the wall clock is read several times.
    let lifetime = 3 * LONGEST_SLEEP + seconds(5);
    let mut session = connection.open(Some(1_000_000 + lifetime.as_secs())).await.unwrap();
    let begin = Instant::now();
    let end = connection.run(&mut session).await;
    assert_eq!((end.code(), end.cause()), (Some(4906), Cause::Expired));
    assert!((lifetime..lifetime + Duration::from_millis(10)).contains(&begin.elapsed()), "{:?}", begin.elapsed());
}

/// Returns how long a session of this lifetime lasts if somebody sets the wall clock after a minute.
async fn lasts(lifetime: u64, set_to: u64) -> Duration {
    let mut connection = Connection::new("origin-router").await;
    let mut session = connection.open(Some(1_000_000 + lifetime)).await.unwrap();
    let begin = Instant::now();
    let setting = async {
        sleep(seconds(60)).await;
        set_wall_clock(set_to);
    };
    let (end, ()) = tokio::join!(connection.run(&mut session), setting);
    assert_eq!(end.code(), Some(4906));
    begin.elapsed()
}

#[tokio::test]
async fn a_session_lasts_longer_if_the_wall_clock_is_set_back() {
    let lasted = lasts(100, 1_000_060 - 1000).await;
    assert!((seconds(1100)..=seconds(1101)).contains(&lasted), "{lasted:?}");
}

#[tokio::test]
async fn a_session_ends_within_an_hour_if_the_wall_clock_is_set_past_its_end() {
    let lasted = lasts(100_000, 2_000_000).await;
    assert!((seconds(60)..=LONGEST_SLEEP + seconds(1)).contains(&lasted), "{lasted:?}");
}

#[tokio::test]
async fn a_session_that_has_expired_already_is_not_opened() {
    let connection = Connection::new("origin-router").await;
    for (expires_at, code) in [(999_999, Some(4906)), (1_000_000, Some(4906)), (1_000_001, None)] {
        let end = connection.open(Some(expires_at)).await.err();
        assert_eq!(end.and_then(|end| end.code()), code, "{expires_at}");
    }
}

#[tokio::test]
async fn the_reply_of_the_login_is_the_first_message() {
    let mut connection = Connection::new("origin-router").await;
    assert!(!connection.push("too early"));
    // Somebody pushes from the moment when the uid can be reached.
    let (registered, begun) = (connection.context.clone(), Arc::new(Barrier::new(2)));
    let pushing = std::thread::spawn({
        let begun = begun.clone();
        move || {
            begun.wait();
            let begin = std::time::Instant::now();
            while !push(&registered, "pushed") && begin.elapsed() < seconds(30) {}
        }
    });
    begun.wait();
    let mut session = connection.open(None).await.unwrap();
    pushing.join().unwrap();
    connection.client.send(TEXT, br#"{"id":"u1","msg":"to myself"}"#).await;
    let Connection { context, client, socket, .. } = &mut connection;
    let reading = async {
        for message in ["welcome", "pushed", "to myself", "Already_Linked"] {
            client.expect(message).await;
        }
    };
    tokio::select! {
        end = session.run(context, socket) => panic!("{end:?}"),
        () = reading => {}
    }
}

#[tokio::test]
async fn the_same_uid_renews_a_session_and_another_one_ends_it_with_4902() {
    let mut connection = Connection::new("rooms-router").await;
    let mut session = connection.open(Some(1_000_060)).await.unwrap();
    connection.client.send(TEXT, br#"{"type":"authenticate","id":"u1"}"#).await;
    let Connection { context, client, socket, .. } = &mut connection;
    let talking = async {
        client.expect("welcome").await;
        client.expect("Link_successful").await;
        // `origin-auth` gives no time: the renewed session does not expire.
        advance(seconds(3600)).await;
        client.send(TEXT, br#"{"type":"authenticate","id":"u2"}"#).await;
    };
    let (end, ()) = tokio::join!(run(&mut session, context, socket), talking);
    assert_eq!((end.code(), end.cause()), (Some(4902), Cause::Unauthenticated));
}

#[tokio::test]
async fn a_denied_renewal_ends_a_session_with_the_plugins_code() {
    let mut connection = Connection::new("rooms-router").await;
    let mut session = connection.open(None).await.unwrap();
    connection.client.send(TEXT, br#"{"type":"authenticate"}"#).await;
    let end = connection.run(&mut session).await;
    assert_eq!((end.code(), end.cause()), (Some(4400), Cause::Plugin));
}

#[tokio::test]
async fn a_session_that_is_closed_or_dropped_cannot_be_reached() {
    let connection = Connection::new("origin-router").await;
    let session = connection.open(None).await.unwrap();
    assert!(connection.push("hi"));
    let closed = session.close(&Expiry::END);
    assert!(!connection.push("gone"));
    assert_eq!(connection.link.outbox.queued_bytes().unwrap_err().cause, Cause::Expired);
    let Ending { cause, code, remaining, .. } = closed.ending;
    assert_eq!((cause, code, remaining), (Cause::Expired, Some(4906), 0));

    let connection = Connection { link: super::super::tests::link(), ..connection };
    let session = connection.open(None).await.unwrap();
    assert!(connection.push("hi"));
    drop(session);
    assert!(!connection.push("gone"));
    assert_eq!(connection.link.outbox.queued_bytes().unwrap_err().cause, Cause::Lost);
}

#[tokio::test]
async fn a_login_of_a_blocked_uid_is_closed_with_4908() {
    let connection = Connection::new("origin-router").await;
    let blocks = &connection.context.registry.blocks;
    blocks.insert("u1".into(), seconds(60)).unwrap();
    let end = connection.open(None).await.err().unwrap();
    assert_eq!((end.code(), end.cause()), (Some(4908), Cause::Operator));
    assert_eq!(connection.link.outbox.queued_bytes(), Ok(0), "the client gets no reply");
    assert!(!connection.push("refused"));
    advance(seconds(60)).await;
    assert!(connection.open(None).await.is_ok());
}

#[tokio::test]
async fn a_login_whose_reply_finds_no_room_replaces_nobody() {
    let Connection { context, link, .. } = Connection::new("origin-router").await;
    let registry = Arc::new(Registry::new(DuplicateLogin::CloseOlder));
    let older = Arc::new(Outbox::new(1 << 20, link.outbox.budget().clone()));
    registry.register(ConnectionId(1), "u1".into(), older.clone(), ([127, 0, 0, 1], 4711).into()).unwrap();
    let context = Context { registry: registry.clone(), ..Arc::into_inner(context).unwrap() };
    let reply = Some(text(&"x".repeat(64 << 20)));
    let identity = Identity { uid: "u1".into(), reply, attributes: Vec::new(), expires_at: None };
    let opened = Session::open(&context, &link, handshake(link.id), identity).await;
    assert_eq!(opened.err().and_then(|(end, _)| end.code()), Some(1013));
    assert!(older.is_open() && registry.connection_count("u1") == 1);
}
