//! Many calls that misbehave at once delay nobody else.

use hotgate_tests::{Component, Setup};

use crate::bystanders::{Bystanders, LONGEST_DELAY};

/// Makes 64 calls of the authenticator misbehave at once, while messages of bystanders are routed.
async fn expect_no_delay(setup: Setup, kinds: &[&str]) {
    let gateway = setup.start().await;
    for kind in kinds {
        let mut crowd = Vec::new();
        for _ in 0..64 {
            crowd.push(gateway.greeted().await);
        }
        let bystanders = Bystanders::watch(&gateway, 10).await;
        for client in &mut crowd {
            client.send(format!("do {kind}")).await;
        }
        for client in &mut crowd {
            client.expect_close(1013).await;
        }
        let noticed = bystanders.stop().await;
        println!("{kind}: {noticed:?}");
        assert!(noticed.slowest < LONGEST_DELAY, "{kind}: {noticed:?}");
    }
}

const ROOM: &str = "limits = { deadline = \"1s\", concurrency = 80 }";

#[tokio::test]
async fn sixty_four_calls_that_spin_delay_nobody_for_long() {
    let setup = Setup::plugin(&Component::fixture(""), ROOM);
    expect_no_delay(setup, &["loop", "log-forever"]).await;
}

/// `fill` loops over instructions that cannot be interrupted, so it delays calls of its own plugin for longer. That is
/// why another plugin routes here.
#[tokio::test]
async fn nor_do_they_where_another_plugin_routes() {
    let config = format!("[[authenticator]]\nfile = \"plugin.wasm\"\n{ROOM}\n[router]\nfile = \"router.wasm\"");
    let setup = Setup::new(&config).file("plugin.wasm", &Component::fixture(""));
    let setup = setup.file("router.wasm", &Component::fixture("version=router"));
    expect_no_delay(setup, &["loop", "log-forever", "fill", "bomb"]).await;
}
