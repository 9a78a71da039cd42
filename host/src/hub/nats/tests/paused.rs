//! A gateway that is paused for longer than it would wait for a server.

use std::process::Stdio;
use std::time::{Duration, Instant};

use hotgate_nats_tests::{NatsSetup, within};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::{Node, config};
use crate::hub::nats::{BusConfig, Event, Target};

const SERVER: &str = "HOTGATE_TESTS_NATS";

/// The paused gateway: another process of this program. Says each event in a line.
#[tokio::test]
#[ignore = "a part of the next test"]
async fn gateway() {
    let Ok(server) = std::env::var(SERVER) else { return };
    let mut node = Node::connect(config(&[server]), 2).await;
    println!("connected");
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        match node.event().await {
            Event::Frame { bytes, .. } => println!("frame {}", String::from_utf8_lossy(&bytes)),
            other => println!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_gateway_that_was_paused_keeps_its_connection() {
    // The server itself waits for longer than the pause.
    let Some(nats) = NatsSetup::new().and("ping_interval: \"1m\"").start().await else { return };
    let settings = BusConfig { queue: 65_536, ..config(&[nats.url()]) };
    let anna = Node::connect(settings, 1).await;
    let (_, module) = module_path!().split_once("::").expect("a module below the crate");
    let mut child = Command::new(std::env::current_exe().expect("the test knows its own file"))
        .args(["--ignored", "--exact", &format!("{module}::gateway"), "--nocapture"])
        .env(SERVER, nats.url())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("a process");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut line = async || within("a line", lines.next_line()).await.expect("text").expect("it runs");
    while line().await != "connected" {}
    let id = Pid::from_raw(child.id().expect("it runs").cast_signed()).expect("a process id");
    kill_process(id, Signal::STOP).expect("it runs");
    tokio::time::sleep(Duration::from_secs(5)).await;
    anna.bus.publish(Target::All, None, "during the pause").expect("sent");
    kill_process(id, Signal::CONT).expect("it runs");
    assert_eq!(line().await, "frame during the pause");
    // The time in which it would give the server up.
    tokio::time::sleep(Duration::from_secs(3)).await;
    anna.bus.publish(Target::All, None, "after it").expect("sent");
    assert_eq!(line().await, "frame after it");
}
