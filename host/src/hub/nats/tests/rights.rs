//! Users, and what they may not do.

use hotgate_nats_tests::{Credentials, Nats, NatsSetup, Nkey, Rights};

use super::{Node, config};
use crate::hub::cluster::id::Incarnation;
use crate::hub::nats::{BusConfig, BusError, Event, Login, Right, Target};

fn password(nats: &Nats, user: &str, password: &str) -> BusConfig {
    let file = nats.put(&format!("{password}.secret"), &format!("{password}\n"));
    let login = Login::Password { user: user.to_owned(), password: file };
    BusConfig { login, ..config(&[nats.url()]) }
}

#[tokio::test]
async fn a_user_with_a_password_gets_in_and_others_do_not() {
    let Some(nats) = NatsSetup::new().user("hotgate", "swordfish", Rights::CLUSTER).start().await else { return };
    let mut node = Node::connect(password(&nats, "hotgate", "swordfish"), 1).await;
    node.bus.publish(Target::All, None, "x").expect("sent");
    assert_eq!(node.frame().await, "x");
    for wrong in [password(&nats, "hotgate", "swordfis"), password(&nats, "nobody", "swordfish"), config(&[nats.url()])]
    {
        let error = Node::try_connect(wrong, 2).await.err().expect("refused");
        assert_eq!(error.to_string(), format!("{} refuses this gateway: authorization violation", nats.url()));
        assert!(matches!(error, BusError::Refused { .. }));
    }
}

#[tokio::test]
async fn an_nkey_gets_in() {
    let (key, other) = (Nkey::new(), Nkey::new());
    let Some(nats) = NatsSetup::new().nkey(&key.public, Rights::CLUSTER).start().await else { return };
    let with = |seed: &str| BusConfig { login: Login::Nkey(nats.put("seed", seed)), ..config(&[nats.url()]) };
    Node::connect(with(&format!("# a comment\n{}\n", key.seed)), 1).await;
    let error = Node::try_connect(with(&other.seed), 1).await.err().expect("refused");
    assert!(matches!(error, BusError::Refused { .. }), "{error:?}");
    let error = Node::try_connect(with("SUNONSENSE"), 1).await.err().expect("refused");
    assert_eq!(error.to_string(), format!("{}: its key cannot be used", nats.folder().join("seed").display()));
}

#[tokio::test]
async fn credentials_get_in() {
    let (own, other) = (Credentials::new(&["hg.>"]), Credentials::new(&["hg.>"]));
    let Some(nats) = NatsSetup::new().and(&own.configuration).start().await else { return };
    let with = |text: &str| BusConfig { login: Login::Credentials(nats.put("creds", text)), ..config(&[nats.url()]) };
    let mut node = Node::connect(with(&own.user), 1).await;
    node.bus.publish(Target::All, None, "x").expect("sent");
    assert_eq!(node.frame().await, "x");
    let error = Node::try_connect(with(&other.user), 1).await.err().expect("refused");
    assert!(matches!(error, BusError::Refused { .. }), "{error:?}");
    let error = Node::try_connect(with("no credentials"), 1).await.err().expect("refused").to_string();
    let file = nats.folder().join("creds");
    assert_eq!(error, format!("{}: cannot parse user JWT from the credentials file", file.display()));
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let Some(nats) = NatsSetup::new().start().await else { return };
    let large = nats.put("large", &"x".repeat((1 << 20) + 1));
    for (file, reason) in [
        (nats.folder().join("missing"), "cannot read it: No such file"),
        (nats.folder().to_owned(), "cannot read it: it is not a regular file"),
        (large, "it is larger than 1048576 bytes"),
        ("/dev/zero".into(), "cannot read it: it is not a regular file"),
    ] {
        let settings = BusConfig { login: Login::Credentials(file.clone()), ..config(&[nats.url()]) };
        let error = Node::try_connect(settings, 1).await.err().expect("refused").to_string();
        assert!(error.starts_with(&format!("{}: {reason}", file.display())), "{error}");
    }
}

#[tokio::test]
async fn a_right_that_is_missing_at_the_start_is_named() {
    let own = "0000000000000001";
    let (link, inbox) = (format!("hg.n.{own}"), format!("hg.i.{own}.>"));
    for (rights, right, subject) in [
        (Rights { subscribe: &["hg.i.>", "hg.n.>", "hg.s.>"], ..Rights::CLUSTER }, Right::Subscribe, "hg.all"),
        (Rights { subscribe: &["hg.all", "hg.i.>", "hg.s.>"], ..Rights::CLUSTER }, Right::Subscribe, link.as_str()),
        (Rights { subscribe: &["hg.all", "hg.n.>", "hg.s.>"], ..Rights::CLUSTER }, Right::Subscribe, inbox.as_str()),
        (Rights { no_publish: &["hg.all"], ..Rights::CLUSTER }, Right::Publish, "hg.all"),
        (Rights { no_publish: &["hg.n.*"], ..Rights::CLUSTER }, Right::Publish, link.as_str()),
    ] {
        let Some(nats) = NatsSetup::new().user("hotgate", "swordfish", rights).start().await else { return };
        let error = Node::try_connect(password(&nats, "hotgate", "swordfish"), 1).await.err().expect("refused");
        let expected = BusError::Denied { server: nats.url(), right, subject: subject.to_owned() };
        assert_eq!(error, expected);
        println!("{error}");
    }
}

#[tokio::test]
async fn a_right_that_is_missing_later_is_an_event() {
    let rights = Rights { no_publish: &["hg.n.0000000000000063"], ..Rights::CLUSTER };
    let Some(nats) = NatsSetup::new().user("hotgate", "swordfish", rights).start().await else { return };
    let mut node = Node::connect(password(&nats, "hotgate", "swordfish"), 1).await;
    node.bus.publish(Target::Link(Incarnation(0x63)), Some(1), "x").expect("sent");
    let denied = Event::Denied { right: Right::Publish, subject: "hg.n.0000000000000063".to_owned() };
    assert_eq!(node.event().await, denied);
    node.bus.flushed().await.expect("the connection goes on");
}

#[tokio::test]
async fn a_user_that_is_removed_loses_the_connection_and_hears_why() {
    let Some(nats) = NatsSetup::new().user("hotgate", "swordfish", Rights::CLUSTER).start().await else { return };
    let mut node = Node::connect(password(&nats, "hotgate", "swordfish"), 1).await;
    nats.configure(&nats.configuration().replace("swordfish", "herring"));
    nats.reload();
    node.disconnected().await;
    let refused = |event: &Event| match event {
        Event::Failed(error @ BusError::Refused { .. }) => Some(error.to_string()),
        _ => None,
    };
    println!("{}", node.until("the reason", refused).await);
    // The password file is read again for each attempt.
    nats.put("swordfish.secret", "herring");
    node.connected().await;
}

#[tokio::test]
async fn a_subscription_that_is_taken_away_is_named() {
    let Some(nats) = NatsSetup::new().user("hotgate", "swordfish", Rights::CLUSTER).start().await else { return };
    let mut node = Node::connect(password(&nats, "hotgate", "swordfish"), 1).await;
    nats.configure(
        &nats.configuration().replace("subscribe: { allow: [\"hg.>\"] }", "subscribe: { allow: [\"hg.i.>\"] }"),
    );
    nats.reload();
    let denied = |event: &Event| match event {
        Event::Failed(error @ BusError::Denied { right: Right::Subscribe, .. }) => Some(error.to_string()),
        _ => None,
    };
    println!("{}", node.until("the reason", denied).await);
}
