//! Several gateways that work as one, over real NATS servers.

mod endings;
mod groups;
mod joining;
mod logins;
mod manifests;
mod messages;
mod operators;
mod outages;
mod repairs;
mod rollout;
mod shadow;
mod strangers;
mod versions;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hotgate_tests::{
    Admin, Client, Component, Finished, Frame, Gateway, Mark, Nats, NatsSetup, Opcode, Response, Setup,
};

/// The longest time that a push may take if another gateway does not answer: `cluster.timeout`, and some turns of a
/// busy machine.
const LONGEST: Duration = Duration::from_millis(1_800);

/// After this time, a gateway that has gone silent is gone for the others. 3 s, and some for a busy machine.
const GONE: Duration = Duration::from_millis(3_500);

/// Starts a NATS server and gateways with the default plugins, which know each other. `config` begins inside the table
/// `[cluster]`. Returns `None` if the test must be skipped.
async fn start<const COUNT: usize>(config: &str) -> Option<(Nats, [Gateway; COUNT])> {
    let nats = NatsSetup::new().start().await?;
    let gateways = join([(); COUNT].map(|()| setup(&nats, config))).await;
    Some((nats, gateways))
}

/// The same with the fixture plugin.
async fn start_fixture<const COUNT: usize>(config: &str) -> Option<(Nats, [Gateway; COUNT])> {
    let nats = NatsSetup::new().start().await?;
    let gateways = join([(); COUNT].map(|()| fixture(&nats, config))).await;
    Some((nats, gateways))
}

/// Starts gateways at the same time: each listens for 3 s before it joins.
async fn join<const COUNT: usize>(setups: [Setup; COUNT]) -> [Gateway; COUNT] {
    join_all(setups.map(Setup::start)).await.try_into().expect("as many gateways")
}

fn setup(nats: &Nats, config: &str) -> Setup {
    Setup::new(&table(&[nats.url()], config))
}

fn fixture(nats: &Nats, config: &str) -> Setup {
    Setup::plugin(&Component::fixture(""), "").and(&table(&[nats.url()], config))
}

fn table(servers: &[String], config: &str) -> String {
    format!("\n[cluster]\nnats = {servers:?}\n{config}\n")
}

/// Runs a gateway that is not expected to serve, until it ends.
async fn refused(setup: Setup) -> Finished {
    let anywhere = ["--websocket-listen", "127.0.0.1:0", "--text-listen", "127.0.0.1:0"];
    setup.run(&[&["serve", "--config", "hotgate.toml"][..], &anywhere].concat()).await
}

/// Pushes by the HTTP API. `query` names the recipients.
async fn post(api: &Admin, query: &str, body: impl AsRef<[u8]>) -> Response {
    api.send(api.request(&format!("POST /v1/push?{query}")), body.as_ref()).await
}

/// Pushes to a uid by the HTTP API, which must take no longer than [`LONGEST`]. Returns `ok` or the reason.
async fn push(api: &Admin, uid: &str, body: &str) -> String {
    let begin = Instant::now();
    let response = post(api, &format!("uid={uid}"), body).await;
    assert!(begin.elapsed() < LONGEST, "{:?}: {response:?}", begin.elapsed());
    outcome(&response)
}

fn outcome(response: &Response) -> String {
    match response.status {
        200 => "ok".to_owned(),
        _ => response.json()["reason"].as_str().unwrap_or_else(|| panic!("a reason: {response:?}")).to_owned(),
    }
}

/// Pushes to a uid by the HTTP API until it is reached. Each try has another number. Returns the reasons before, and
/// the number that was taken.
async fn push_until_ok(api: &Admin, uid: &str) -> (BTreeSet<String>, u32) {
    let mut reasons = BTreeSet::new();
    for number in 0.. {
        match push(api, uid, &number.to_string()).await.as_str() {
            "ok" => return (reasons, number),
            reason => reasons.insert(reason.to_owned()),
        };
        assert!(number < 1_000, "{reasons:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    unreachable!("it returns")
}

/// Reads until the close frame. Returns its code. Before it, there may be a `123` about another connection of the uid.
async fn closed(client: &mut Client) -> u16 {
    loop {
        let frame = client.next_frame().await;
        if frame.opcode == Opcode::CLOSE {
            client.try_bytes(&Frame { masked: true, ..frame.clone() }.encode()).await;
            client.ended().await;
            return frame.close_reason().0;
        }
    }
}

/// Waits for a line of the log that begins with this message.
async fn logged(gateway: &Gateway, since: Mark, message: &str) {
    gateway.logged_since(since, |line| line.message().starts_with(message)).await;
}

/// Sends a sentence that only affects others, and waits until it has been carried out here.
async fn tell(client: &mut Client, sentence: &str) {
    client.send(sentence).await;
    client.send("say done").await;
    client.expect("done").await;
}
