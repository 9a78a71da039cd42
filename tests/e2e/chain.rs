//! The authenticators' contract: greetings, challenges, the chain, identities, and the ends of sessions.

use std::time::{Duration, Instant};

use hotgate_tests::{Client, Component, Frame, Gateway, Opcode, Setup};

async fn start(script: &str) -> Gateway {
    Gateway::with_plugin(&Component::fixture(script)).await
}

/// Starts a gateway with a chain of fixtures with these scripts, and one more fixture as the router.
async fn start_chain(scripts: &[&str]) -> Gateway {
    let mut setup = Setup::new("[router]\nfile = \"router.wasm\"\n").file("router.wasm", &Component::fixture(""));
    for (place, script) in scripts.iter().enumerate() {
        let name = format!("plugin{place}.wasm");
        setup = setup.and(&format!("[[authenticator]]\nfile = \"{name}\"\n")).file(&name, &Component::fixture(script));
    }
    setup.start().await
}

#[tokio::test]
async fn a_handshake_alone_may_be_enough() {
    let gateway = start("greet=login guest").await;
    let mut guest = gateway.connect().await;
    guest.expect("welcome guest v1").await;
    guest.send("me").await;
    guest.expect("guest []").await;
}

#[tokio::test]
async fn a_handshake_alone_may_be_denied() {
    let gateway = start("greet=deny 4321 closed on mondays").await;
    let mut client = gateway.connect().await;
    assert_eq!(client.expect_close(4321).await, "closed on mondays");
}

#[tokio::test]
async fn pass_waits_for_the_first_packet_in_silence() {
    let gateway = start("greet=pass").await;
    let mut client = gateway.connect().await;
    client.expect_nothing().await;
    client.send("login anna").await;
    client.expect("welcome anna v1").await;
}

#[tokio::test]
async fn a_challenge_may_be_silent() {
    let gateway = start("greet=silence").await;
    let mut client = gateway.connect().await;
    client.expect_nothing().await;
    client.send("silence").await;
    client.expect_nothing().await;
    client.send("login anna").await;
    client.expect("welcome anna v1").await;
}

#[tokio::test]
async fn a_denial_closes_with_the_plugin_s_code_and_reason() {
    let gateway = start("").await;
    for code in [1000, 1008, 1013, 3000, 4000, 4899] {
        let mut client = gateway.connect().await;
        client.expect("hello v1").await;
        client.send(format!("deny {code} because")).await;
        assert_eq!(client.expect_close(code).await, "because");
    }
}

#[tokio::test]
async fn whom_no_authenticator_accepts_is_denied_with_4902() {
    let gateway = start("").await;
    for sentence in ["pass".to_owned(), format!("login {}", "u".repeat(257)), "login  quiet".to_owned()] {
        let mut client = gateway.connect().await;
        client.expect("hello v1").await;
        client.send(sentence).await;
        client.expect_close(4902).await;
    }
}

#[tokio::test]
async fn a_login_takes_at_most_8_rounds() {
    let gateway = start("").await;
    let mut client = gateway.connect().await;
    client.expect("hello v1").await;
    for _ in 0..7 {
        client.send("ask again").await;
        client.expect("again").await;
    }
    client.send("login anna").await;
    client.expect("welcome anna v1").await;

    let mut client = gateway.connect().await;
    client.expect("hello v1").await;
    let asked = async |client: &mut Client| {
        client.send("ask again").await;
        client.next_frame().await
    };
    let mut rounds = 1;
    let end = loop {
        match asked(&mut client).await {
            frame if frame.opcode == Opcode::CLOSE => break frame.close_reason(),
            _ => rounds += 1,
        }
        assert!(rounds < 20, "nothing bounds the rounds of a login");
    };
    assert_eq!(end.0, 4902, "{end:?}");
}

#[tokio::test]
async fn the_first_packet_goes_down_the_chain_until_one_decides() {
    let gateway =
        start_chain(&["version=one;authenticate=pass", "version=two;greet=pass", "version=three;greet=pass"]).await;
    let mut client = gateway.connect().await;
    client.expect("hello vone").await;
    client.send("login anna").await;
    client.expect("welcome anna vtwo").await;
}

#[tokio::test]
async fn all_are_greeted_in_order_and_the_first_challenge_is_the_greeting() {
    let gateway =
        start_chain(&["greet=pass;authenticate=pass", "version=two;authenticate=pass", "version=three"]).await;
    let mut client = gateway.connect().await;
    client.expect("hello vtwo").await;
    client.expect_nothing().await;
    client.send("login anna").await;
    client.expect("welcome anna vthree").await;

    let gateway = start_chain(&["version=one", "greet=deny 4444 no"]).await;
    let mut client = gateway.connect().await;
    let mut frame = client.next_frame().await;
    if frame.opcode == Opcode::TEXT {
        frame = client.next_frame().await;
    }
    assert_eq!(frame.close_reason().0, 4444);
}

#[tokio::test]
async fn a_challenge_after_a_packet_binds_the_connection() {
    let gateway = start_chain(&["version=one;greet=pass", "version=two;greet=pass"]).await;
    let mut client = gateway.connect().await;
    client.send("ask who are you?").await;
    client.expect("who are you?").await;
    client.send("login anna").await;
    client.expect("welcome anna vone").await;

    // A bound client cannot be passed on to the next authenticator.
    let mut client = gateway.connect().await;
    client.send("ask who are you?").await;
    client.expect("who are you?").await;
    client.send("pass").await;
    client.expect_close(4902).await;
}

#[tokio::test]
async fn state_is_handed_back_at_the_next_packet() {
    let gateway = start("version=7").await;
    let mut client = gateway.connect().await;
    client.expect("hello v7").await;
    client.send("step").await;
    client.expect("next v7").await;
    client.send("login anna").await;
    client.expect("welcome anna v7 after v7").await;
}

#[tokio::test]
async fn an_identity_may_reply_with_nothing_or_with_the_packet_itself() {
    let gateway = start("").await;
    let mut quiet = gateway.connect().await;
    quiet.expect("hello v1").await;
    quiet.send("login anna quiet").await;
    quiet.send("say first").await;
    quiet.expect("first").await;

    let mut echoed = gateway.connect().await;
    echoed.expect("hello v1").await;
    echoed.frame(Frame::binary("login bob echo")).await;
    echoed.expect_frame(Opcode::BINARY, "login bob echo").await;
}

#[tokio::test]
async fn attributes_reach_the_router() {
    let gateway = start("").await;
    let mut anna = gateway.enter_as("login anna role=admin tenant=blue").await;
    anna.send("me").await;
    anna.expect("anna [role=admin,tenant=blue]").await;
}

#[tokio::test]
async fn a_session_ends_when_it_expires() {
    let gateway = start("").await;
    let begin = Instant::now();
    let mut anna = gateway.enter_as("login anna ttl=2").await;
    anna.expect_close(4906).await;
    assert!(begin.elapsed() >= Duration::from_millis(900), "{:?}", begin.elapsed());
    assert_eq!(gateway.sender().await.ask("to anna hi").await, "fail");
}

#[tokio::test]
async fn an_identity_that_has_expired_already_does_not_log_in() {
    let gateway = start("").await;
    let mut client = gateway.connect().await;
    client.expect("hello v1").await;
    client.send("login anna ttl=0").await;
    client.expect_close(4906).await;
}

#[tokio::test]
async fn the_same_uid_renews_a_session() {
    let gateway = start("").await;
    let mut anna = gateway.enter_as("login anna ttl=3 role=user").await;
    anna.send("renew anna ttl=3600 role=admin").await;
    anna.expect("welcome anna v1").await;
    anna.send("me").await;
    anna.expect("anna [role=admin]").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    anna.expect_nothing().await;
}

#[tokio::test]
async fn another_uid_a_denial_or_a_question_ends_a_session_that_renews() {
    let gateway = start("").await;
    let mut anna = gateway.enter("anna").await;
    anna.send("renew bob").await;
    anna.expect_close(4902).await;

    let gateway = start("route=renew").await;
    for (packet, code) in [("deny 4001 no more", 4001), ("pass", 4902), ("ask why?", 4902)] {
        let mut anna = gateway.enter("anna").await;
        anna.send(packet).await;
        anna.expect_close(code).await;
    }
}
