use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytestring::ByteString;

use super::*;
use crate::base::message::{ClientKey, CloseReason, ConnectionId, Message};
use crate::config::{Isolation, Overrides, PluginSource, Settings};
use crate::hub::command::{Action, Answer, Command, Delivery, Recipient, Sender, Session};

fn config() -> Config {
    Config::load(None, &Overrides::default()).expect("the defaults are valid")
}

async fn load(config: &Config) -> anyhow::Result<Policy> {
    let state = Arc::new(StateFolder::none("a test"));
    Policy::load(&config.clone().into(), Arc::new(Registry::new(config.sessions.duplicate_login)), state).await
}

fn handshake() -> Handshake {
    Handshake {
        connection: ConnectionId(1),
        remote_address: SocketAddr::from(([192, 0, 2, 1], 4711)).into(),
        path: "/".to_owned(),
        query: None,
        headers: Vec::new(),
    }
}

fn text(text: &str) -> Message {
    Message::Text(text.to_owned().into())
}

#[tokio::test]
async fn the_default_plugins_speak_the_origin_protocol() {
    let policy = load(&config()).await.unwrap();
    let slots: Vec<_> = policy.plugins().into_iter().map(|plugin| (plugin.slot, plugin.source)).collect();
    let expected = [("authenticator", "builtin:origin-auth"), ("router", "builtin:origin-router")];
    assert_eq!(slots, expected.map(|(slot, source)| (slot.to_owned(), source.to_owned())));

    let (mut login, greeting) = policy.authenticator.greet(&handshake()).await;
    assert_eq!(greeting, Decision::Prompt(Some(text("HeartBeat"))));
    let decision = policy.authenticator.authenticate(&mut login, &handshake(), &text(r#"{"id":"u1"}"#)).await;
    let Decision::Accept(identity) = decision else { panic!("{decision:?}") };
    assert_eq!((&*identity.uid, identity.reply), ("u1", Some(text("Link_successful"))));

    let session = Session {
        connection: ConnectionId(1),
        client: ClientKey::new(Ipv4Addr::LOCALHOST.into(), &identity.uid),
        uid: identity.uid,
        attributes: identity.attributes,
        state: Default::default(),
    };
    assert_eq!(policy.router.opened(&session).await, Ok(vec![]));
    let actions = policy.router.route(&session, &text(r#"{"id":"u2","msg":"hi"}"#)).await.unwrap();
    let delivery = Delivery { to: Recipient::Uid("u2".into()), message: text("hi"), otherwise: None };
    assert_eq!(actions, [Action::Command(Command::Deliver(delivery)), Action::Reply(text("Already_Linked"))]);

    let sender = Sender { connection: ConnectionId(2), remote_address: "127.0.0.1:4712".to_owned() };
    let line = ByteString::from(r#"{"uid":"u1","n":1}"#);
    let Answer { commands, reply } = policy.router.push(&sender, &line).await.unwrap();
    let [Command::Deliver(delivery)] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!((&delivery.to, reply), (&Recipient::Uid("u1".into()), None));
    // The line itself, not a copy.
    assert_eq!(delivery.message.as_bytes().as_ptr(), line.as_bytes().as_ptr());
}

#[tokio::test]
async fn a_packet_without_an_id_is_denied_by_the_plugin() {
    let policy = load(&config()).await.unwrap();
    let (mut login, _) = policy.authenticator.greet(&handshake()).await;
    let decision = policy.authenticator.authenticate(&mut login, &handshake(), &text("{}")).await;
    assert!(matches!(decision, Decision::Deny(_, CloseReason { code: 4400, .. })), "{decision:?}");
}

#[tokio::test]
async fn a_plugin_in_the_wrong_place_is_refused_with_its_place_and_its_name() {
    let mut config = config();
    config.router.plugin.source = PluginSource::Builtin("origin-auth".to_owned());
    config.router.plugin.limits.concurrency = 1;
    let error = format!("{:#}", load(&config).await.unwrap_err());
    assert!(error.starts_with("router: cannot load builtin:origin-auth: it is no router"), "{error}");
    config.router.plugin.source = PluginSource::File("/nowhere/router.wasm".into());
    let error = format!("{:#}", load(&config).await.unwrap_err());
    assert!(error.starts_with("router: cannot load /nowhere/router.wasm: "), "{error}");
}

#[test]
fn equal_plugins_are_one_whatever_their_isolation() {
    let mut config = config();
    let first = config.authenticators[0].clone();
    let mut second = first.clone();
    second.settings = Settings::from_iter([("KEY".to_owned(), "value".to_owned())]);
    config.authenticators.push(second);
    config.router.plugin = PluginConfig { isolation: Isolation::Pooled, ..first };
    let names: Vec<_> = slot_configs(&config).iter().map(|slot| slot.name(&config)).collect();
    assert_eq!(names, ["authenticator-1+router", "authenticator-2"]);
}
