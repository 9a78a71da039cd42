//! The router's contract: recipients, groups, state, the directory, and the end of a session.

use hotgate_tests::{Client, Component, Frame, Gateway, Opcode, Setup};

async fn start() -> Gateway {
    Gateway::with_plugin(&Component::fixture("")).await
}

/// Sends a sentence that only affects others, and waits until it has taken effect.
async fn tell(client: &mut Client, sentence: &str) {
    client.send(sentence).await;
    client.send("say done").await;
    client.expect("done").await;
}

#[tokio::test]
async fn a_delivery_that_reaches_nobody_has_an_otherwise() {
    let gateway = start().await;
    let (mut anna, mut bob) = (gateway.enter("anna").await, gateway.enter("bob").await);
    anna.send("to bob hi").await;
    bob.expect("hi").await;
    anna.send("to carol hi").await;
    anna.expect("nobody").await;
    anna.expect_nothing().await;
}

#[tokio::test]
async fn a_uid_that_cannot_be_reaches_nobody() {
    let gateway = start().await;
    let mut anna = gateway.enter("anna").await;
    for uid in [String::new(), "u".repeat(257)] {
        anna.send(format!("to {uid} hi")).await;
        anna.expect("nobody").await;
    }
}

#[tokio::test]
async fn the_packet_itself_is_passed_on_as_it_came() {
    let gateway = start().await;
    let (mut anna, mut bob) = (gateway.enter("anna").await, gateway.enter("bob").await);
    anna.frame(Frame::binary("pass-on bob \0 and more")).await;
    bob.expect_frame(Opcode::BINARY, "pass-on bob \0 and more").await;
    anna.send("pass-on bob").await;
    bob.expect("pass-on bob").await;
}

#[tokio::test]
async fn groups_reach_their_members() {
    let gateway = start().await;
    let (mut anna, mut bob) = (gateway.enter("anna").await, gateway.enter("bob").await);
    let mut carol = gateway.enter("carol").await;
    tell(&mut anna, "join room").await;
    tell(&mut bob, "join room").await;

    anna.send("group room hello").await;
    anna.expect("hello").await;
    bob.expect("hello").await;
    tell(&mut anna, "others room only you").await;
    bob.expect("only you").await;
    carol.send("group room from outside").await;
    anna.expect("from outside").await;
    bob.expect("from outside").await;

    tell(&mut bob, "leave room").await;
    tell(&mut carol, "group room again").await;
    anna.expect("again").await;
    bob.expect_nothing().await;
    carol.expect_nothing().await;
}

#[tokio::test]
async fn connections_leave_their_groups_when_they_close() {
    let gateway = start().await;
    let (mut anna, mut bob) = (gateway.enter("anna").await, gateway.enter("bob").await);
    tell(&mut anna, "join room").await;
    tell(&mut bob, "enlist anna other").await;
    tell(&mut bob, "join room").await;
    bob.send("members room").await;
    let members = bob.text().await;
    assert!(["anna,bob", "bob,anna"].contains(&members.as_str()), "{members}");
    anna.close().await;
    bob.send("members room").await;
    bob.expect("bob").await;
    bob.send("members other").await;
    bob.expect("").await;
}

#[tokio::test]
async fn everyone_is_everyone_who_is_authenticated() {
    let gateway = start().await;
    let (mut anna, mut bob) = (gateway.enter("anna").await, gateway.enter("bob").await);
    let mut stranger = gateway.connect().await;
    stranger.expect("hello v1").await;
    anna.send("everyone hear ye").await;
    anna.expect("hear ye").await;
    bob.expect("hear ye").await;
    stranger.expect_nothing().await;
    assert_eq!(gateway.sender().await.ask("everyone and again").await, "ok");
    anna.expect("and again").await;
    bob.expect("and again").await;
}

#[tokio::test]
async fn a_session_remembers_what_its_router_tells_it_to() {
    let gateway = start().await;
    let (mut anna, mut bob) = (gateway.enter("anna").await, gateway.enter("bob").await);
    anna.send("recall").await;
    anna.expect("").await;
    tell(&mut anna, "remember the milk").await;
    anna.send("recall").await;
    anna.expect("the milk").await;
    bob.send("recall").await;
    bob.expect("").await;
}

#[tokio::test]
async fn the_directory_answers() {
    let gateway = start().await;
    let mut anna = gateway.enter("anna").await;
    let _other = gateway.enter("anna").await;
    for (sentence, answer) in
        [("connections anna", "2"), ("connections bob", "0"), ("member room", "false"), ("members room", "")]
    {
        anna.send(sentence).await;
        anna.expect(answer).await;
    }
    tell(&mut anna, "join room").await;
    anna.send("member room").await;
    anna.expect("true").await;
}

#[tokio::test]
async fn a_router_may_close_connections_after_what_is_queued() {
    let gateway = start().await;
    let (mut anna, mut bob) = (gateway.enter("anna").await, gateway.enter("bob").await);
    anna.send("to bob last words").await;
    anna.send("close bob 4200 enough").await;
    bob.expect("last words").await;
    assert_eq!(bob.expect_close(4200).await, "enough");
    assert_eq!(gateway.sender().await.ask("close anna 4201 you too").await, "ok");
    assert_eq!(anna.expect_close(4201).await, "you too");
}

#[tokio::test]
async fn opened_is_carried_out_before_the_reply() {
    let gateway = start().await;
    let mut bob = gateway.enter("bob").await;
    let mut anna = gateway.connect().await;
    anna.expect("hello v1").await;
    anna.send("login anna opened=to_bob_anna_is_here").await;
    anna.expect("welcome anna v1").await;
    bob.expect("anna is here").await;

    let mut carol = gateway.enter_as("login carol opened=join_room").await;
    carol.send("member room").await;
    carol.expect("true").await;
}

#[tokio::test]
async fn nothing_reaches_a_client_before_its_reply() {
    let gateway = start().await;
    let mut carol = gateway.connect().await;
    carol.expect("hello v1").await;
    carol.send("login carol opened=say_to_myself").await;
    carol.expect("welcome carol v1").await;
    carol.expect("to myself").await;
}

#[tokio::test]
async fn the_end_of_a_session_is_told_to_the_router() {
    let gateway = Setup::plugin(&Component::fixture(""), "")
        .and("[heartbeat]\ntimeout = \"3s\"\ncheck_interval = \"100ms\"")
        .start()
        .await;
    let mut watcher = gateway.enter("watcher").await;
    let mut expect = async |obituary: &str| {
        loop {
            match tokio::time::timeout(std::time::Duration::from_millis(500), watcher.next_frame()).await {
                Ok(frame) if frame.opcode == Opcode::TEXT => break assert_eq!(frame.payload, obituary),
                // Keeps the watcher itself from becoming silent.
                _ => watcher.frame(Frame::ping("")).await,
            }
        }
    };

    gateway.enter("anna").await.close().await;
    expect("anna Cause::Client 1000 [] 0").await;

    let mut anna = gateway.enter("anna").await;
    anna.send("close anna 4200 enough").await;
    anna.expect_close(4200).await;
    expect("anna Cause::Plugin 4200 [] 0").await;

    gateway.enter_as("login anna ttl=1").await.expect_close(4906).await;
    expect("anna Cause::Expired 4906 [] 0").await;

    let mut anna = gateway.enter("anna").await;
    anna.frame(Frame::text("hi").unmasked()).await;
    anna.expect_close(1002).await;
    expect("anna Cause::ProtocolError 1002 [] 0").await;

    let first = gateway.enter_as("login anna opened=join_room").await;
    let second = gateway.enter("anna").await;
    first.reset();
    expect("anna Cause::Lost none [room] 1").await;
    second.close().await;
    expect("anna Cause::Client 1000 [] 0").await;

    let mut bob = gateway.enter("bob").await;
    tokio::join!(bob.expect_close(4900), expect("bob Cause::Silent 4900 [] 0"));
}

#[tokio::test]
async fn what_closed_returns_is_carried_out() {
    let gateway = start().await;
    let mut bob = gateway.enter("bob").await;
    gateway.enter_as("login anna closed=to_bob_anna_has_left").await.close().await;
    bob.expect("anna has left").await;
}

#[tokio::test]
async fn a_push_may_have_an_answer_of_its_own() {
    let gateway = start().await;
    let mut anna = gateway.enter("anna").await;
    let mut sender = gateway.sender().await;
    for (line, answer) in [
        ("say 3 reached", "3 reached"),
        ("say ", ""),
        ("to anna hi", "ok"),
        ("to bob hi", "fail"),
        ("nothing to do", "ok"),
        ("error no such thing", "fail"),
        ("group nobody hi", "fail"),
    ] {
        assert_eq!(sender.ask(line).await, answer, "{line}");
    }
    anna.expect("hi").await;
    assert!(sender.ask("me").await.starts_with("127.0.0.1:"));
    gateway.logged(|line| line.says("no such thing")).await;
}
