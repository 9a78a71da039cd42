//! Who may join: node ids, secrets, users, certificates.

use std::time::{Duration, Instant};

use hotgate_tests::{Authority, Credentials, Gateway, NatsSetup, Nkey, Proxy, Rights, Setup};
use tokio::time::sleep;

use super::{join, logged, push, refused, setup, start, table};

/// Puts the secret of the cluster beside `hotgate.toml`.
fn with_secret(setup: Setup, secret: &str) -> Setup {
    setup.bytes("secret", secret.as_bytes())
}

/// A message in each direction.
async fn work_together(a: &Gateway, b: &Gateway) {
    for (uid, here, there) in [("anna", a, b), ("bob", b, a)] {
        let mut client = there.login(uid).await;
        assert_eq!(push(&here.api().await, uid, "hi").await, "ok");
        client.expect("hi").await;
    }
}

#[tokio::test]
async fn two_gateways_with_one_node_id_are_one_too_many() {
    let Some((nats, [a, b])) = start::<2>("").await else { return };
    let taken = {
        let line = a.logged(|line| line.message() == "this gateway is part of the cluster").await;
        line.number("node")
    };
    let begin = Instant::now();
    let finished = refused(setup(&nats, &format!("node = {taken}"))).await;
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    assert_eq!(finished.code, Some(78), "{finished:?}");
    assert!(finished.stderr.contains("cluster.node") && finished.stderr.contains(&taken.to_string()), "{finished:?}");
    work_together(&a, &b).await;
}

#[tokio::test]
async fn of_two_gateways_that_start_with_one_node_id_one_serves() {
    let Some(nats) = NatsSetup::new().start().await else { return };
    let config = "node = 5\nwithout_nats = \"refuse\"";
    // The first one has begun some time before.
    let starting = tokio::spawn(setup(&nats, config).start());
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    let finished = refused(setup(&nats, config)).await;
    assert_eq!(finished.code, Some(78), "{finished:?}");
    assert!(finished.stderr.contains("cluster.node"), "{finished:?}");
    let a = starting.await.expect("it serves");
    let _anna = a.login("anna").await;
    assert!(a.reaches("anna").await);
}

#[tokio::test]
async fn a_gateway_that_is_killed_starts_again_with_its_node_id_at_once() {
    let Some((_nats, [mut a])) = start::<1>("node = 7").await else { return };
    let begin = Instant::now();
    a.restart().await;
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

/// Kills a gateway whose last frames are held back, starts it again with its node id, and lets the frames pass this
/// long after its start. The new gateway must serve.
async fn dies_and_is_heard_after(delay: Duration) {
    let Some(nats) = NatsSetup::new().and("ping_interval: \"30s\"").start().await else { return };
    let proxy = Proxy::start(nats.address()).await;
    let mut gateway = Setup::new(&table(&[proxy.url()], "node = 7")).start().await;
    proxy.hold();
    // Two beats, before the gateway notices.
    sleep(Duration::from_millis(1_800)).await;
    gateway.signal("KILL");
    gateway.exit_code().await;
    gateway.reconfigure(&table(&[nats.url()], "node = 7"));
    let passing = async {
        sleep(delay).await;
        proxy.pass();
    };
    tokio::join!(gateway.start_again(), passing);
    sleep(Duration::from_secs(2)).await;
    let _anna = gateway.login("anna").await;
    assert!(gateway.reaches("anna").await);
    let ended = gateway.admin().await.metric(r#"hotgate_cluster_frames_dropped_total{reason="ended"}"#).await;
    assert!(ended > 0.0, "nothing has arrived");
    assert!(!gateway.log().since(Default::default()).iter().any(|line| line.says("cluster.node")));
}

/// What a gateway has sent may be under way for long: in a network that loses packets for a while, or in a NATS server
/// that stands still.
#[tokio::test]
async fn a_gateway_that_starts_does_not_yield_to_what_it_had_sent_before_it_was_killed() {
    dies_and_is_heard_after(Duration::from_millis(1_500)).await;
}

#[tokio::test]
async fn a_gateway_that_serves_does_not_yield_to_what_it_had_sent_before_it_was_killed() {
    dies_and_is_heard_after(Duration::from_secs(6)).await;
}

#[tokio::test]
async fn another_secret_is_refused() {
    let Some(nats) = NatsSetup::new().start().await else { return };
    let own = || with_secret(setup(&nats, "secret = \"secret\""), "one for all");
    let [a, b] = join([own(), own()]).await;
    let mark = a.log().mark();
    for stranger in [
        with_secret(setup(&nats, "secret = \"secret\""), "another"),
        // None at all.
        setup(&nats, ""),
    ] {
        let finished = refused(stranger).await;
        assert_eq!(finished.code, Some(78), "{finished:?}");
        assert!(finished.stderr.contains("cluster.secret"), "{finished:?}");
    }
    work_together(&a, &b).await;
    assert!(!a.log().since(mark).iter().any(|line| line.says("takes part")));
}

#[tokio::test]
async fn a_secret_that_cannot_be_used_is_named() {
    let Some(nats) = NatsSetup::new().start().await else { return };
    for (setup, words) in [
        (setup(&nats, "secret = \"missing\""), ["cluster.secret", "missing", "No such file"]),
        (with_secret(setup(&nats, "secret = \"secret\""), " \n"), ["cluster.secret", "/secret", "empty"]),
    ] {
        let finished = refused(setup).await;
        assert_eq!(finished.code, Some(78), "{finished:?}");
        assert!(words.iter().all(|word| finished.stderr.contains(word)), "{finished:?}");
    }
}

#[tokio::test]
async fn a_user_without_rights_is_told_what_is_missing() {
    let none = Rights { publish: &["hg.>"], no_publish: &[], subscribe: &["hg.n.>", "hg.i.>", "hg.s.>"] };
    let nats = NatsSetup::new().user("hotgate", "swordfish", Rights::CLUSTER).user("guest", "herring", none);
    let Some(nats) = nats.start().await else { return };
    let user = |user: &str, password: &str, more: &str| {
        let config = format!("user = \"{user}\"\npassword = \"password\"\n{more}");
        setup(&nats, &config).bytes("password", password.as_bytes())
    };
    let refuse = "without_nats = \"refuse\"";
    for (setup, words) in [
        (user("guest", "herring", refuse), ["cluster.nats", "subscribe", "hg.all"]),
        (user("hotgate", "herring", refuse), ["cluster.nats", &nats.url(), "authorization violation"]),
        (setup(&nats, refuse), ["cluster.nats", &nats.url(), "authorization violation"]),
    ] {
        let finished = refused(setup).await;
        assert_eq!(finished.code, Some(78), "{finished:?}");
        assert!(words.iter().all(|word| finished.stderr.contains(word)), "{finished:?}");
    }
    // One that may serve alone says the same in its log.
    let alone = user("guest", "herring", "").start().await;
    alone.logged(|line| line.says("this gateway serves alone") && line.says("hg.all")).await;
    let _anna = alone.login("anna").await;
    let [a, b] = join([user("hotgate", "swordfish", refuse), user("hotgate", "swordfish\n", refuse)]).await;
    work_together(&a, &b).await;
}

#[tokio::test]
async fn certificates_nkeys_and_credentials_get_in() {
    let (authority, clients, key) = (Authority::new(), Authority::new(), Nkey::new());
    let (server, own) = (authority.issue(&["127.0.0.1"]), clients.issue(&["gateway"]));
    let nats = NatsSetup::new().mutual_tls(&server, &clients).nkey(&key.public, Rights::CLUSTER);
    let Some(nats) = nats.start().await else { return };
    let config = "authorities = \"ca.pem\"\ncertificate = \"own.pem\"\nkey = \"own.key\"\nnkey = \"seed\"\nwithout_nats = \"refuse\"";
    let secure = || {
        let setup = Setup::new(&table(&[nats.url().replace("nats:", "tls:")], config)).identity("own", &own);
        setup.bytes("ca.pem", authority.certificate().as_bytes()).bytes("seed", key.seed.as_bytes())
    };
    let credentials = Credentials::new(&["hg.>"]);
    let Some(plain) = NatsSetup::new().and(&credentials.configuration).start().await else { return };
    let with = || setup(&plain, "credentials = \"creds\"").bytes("creds", credentials.user.as_bytes());
    let [a, b, c, d] = join([secure(), secure(), with(), with()]).await;
    work_together(&a, &b).await;
    work_together(&c, &d).await;
    let stranger = Authority::new();
    let finished = refused(secure().bytes("ca.pem", stranger.certificate().as_bytes())).await;
    assert_eq!(finished.code, Some(78), "{finished:?}");
    assert!(finished.stderr.contains("not trusted"), "{finished:?}");
}

#[tokio::test]
async fn a_gateway_is_not_open_before_it_belongs_to_the_cluster() {
    let Some((nats, [a])) = start::<1>("").await else { return };
    let mark = a.log().mark();
    let mut client = a.login("anna").await;
    let b = setup(&nats, "").start().await;
    // As soon as it listens, it knows all logins.
    assert_eq!(push(&b.api().await, "anna", "hi").await, "ok");
    client.expect("hi").await;
    assert_eq!(push(&b.api().await, "nobody", "hi").await, "offline");
    logged(&a, mark, "another gateway takes part").await;
    assert_eq!(b.admin().await.ask("GET /readyz").await.status, 200);
}
