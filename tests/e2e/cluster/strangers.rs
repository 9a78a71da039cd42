//! Others at the same NATS server: garbage, old frames, and other clusters.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use hotgate_tests::{Nats, NatsSetup, eventually};
use tokio::task::spawn_blocking;

use super::{join, logged, outcome, post, push, setup, start};

/// A client of NATS that speaks its protocol line by line.
struct Stranger {
    stream: BufReader<TcpStream>,
}

/// A message that it has read.
struct Heard {
    subject: String,
    reply: Option<String>,
    bytes: Vec<u8>,
}

impl Stranger {
    fn connect(nats: &Nats) -> Self {
        let stream = TcpStream::connect(nats.address()).expect("the port is open");
        stream.set_read_timeout(Some(Duration::from_millis(200))).expect("a time");
        let mut stranger = Self { stream: BufReader::new(stream) };
        stranger.write(b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nPING\r\n");
        stranger
    }

    fn write(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).expect("the server reads");
    }

    fn publish(&mut self, subject: &str, reply: Option<&str>, bytes: &[u8]) {
        let reply = reply.map_or_else(String::new, |reply| format!(" {reply}"));
        let head = format!("PUB {subject}{reply} {}\r\n", bytes.len());
        self.write(&[head.as_bytes(), bytes, b"\r\n"].concat());
    }

    /// Reads everything on these subjects for so long.
    fn listen(&mut self, subjects: &str, time: Duration) -> Vec<Heard> {
        self.write(format!("SUB {subjects} 1\r\n").as_bytes());
        let (begin, mut heard) = (Instant::now(), Vec::new());
        let mut line = String::new();
        while begin.elapsed() < time {
            // What was read before the time was over stays in the line.
            if self.stream.read_line(&mut line).is_err() || !line.ends_with('\n') {
                continue;
            }
            let words = line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            line.clear();
            match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["PING"] => self.write(b"PONG\r\n"),
                [kind @ ("MSG" | "HMSG"), subject, _, ref rest @ ..] => {
                    let sizes = if kind == "MSG" { 1 } else { 2 };
                    let total = rest[rest.len() - 1].parse::<usize>().expect("a size");
                    let head = if sizes == 2 { rest[rest.len() - 2].parse::<usize>().expect("a size") } else { 0 };
                    let mut bytes = vec![0; total + 2];
                    self.stream.read_exact(&mut bytes).expect("a whole message");
                    bytes.truncate(total);
                    let reply = (rest.len() > sizes).then(|| rest[0].to_owned());
                    heard.push(Heard { subject: subject.to_owned(), reply, bytes: bytes.split_off(head) });
                }
                _ => {}
            }
        }
        self.write(b"UNSUB 1\r\nPING\r\n");
        heard
    }
}

/// Bytes that look like nothing, the same in each run.
fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test]
async fn garbage_and_repeated_frames_hurt_nobody() {
    let Some((nats, [a, b])) = start::<2>("").await else { return };
    let (mut anna, mut bob) = (a.login("anna").await, b.login("bob").await);
    let mut stranger = Stranger::connect(&nats);
    let listening = spawn_blocking(move || (stranger.listen("hg.>", Duration::from_secs(3)), stranger));
    let mut sent = 0_u32;
    while !listening.is_finished() {
        assert_eq!(push(&a.api().await, "bob", &sent.to_string()).await, "ok");
        bob.expect(sent.to_string()).await;
        b.login(&format!("guest {sent}")).await.close().await;
        sent += 1;
    }
    let (heard, mut stranger) = listening.await.expect("it listens");
    assert!(heard.iter().any(|heard| heard.subject == "hg.all"), "beats");
    assert!(heard.iter().any(|heard| heard.subject.starts_with("hg.n.")), "commands");
    let disturbing = spawn_blocking(move || {
        for (n, Heard { subject, reply, bytes }) in heard.iter().enumerate() {
            let reply = reply.as_deref();
            stranger.publish(subject, reply, bytes);
            stranger.publish(subject, reply, &bytes[..bytes.len() / 2]);
            stranger.publish(subject, reply, &bytes[..bytes.len().saturating_sub(1)]);
            stranger.publish(subject, None, &[bytes, &b"and more"[..]].concat());
            stranger.publish(subject, Some("hg.i.0.0"), &noise(n % 300, n as u64));
            // The head of a frame, and then noise.
            let head = bytes.len().min(26);
            stranger.publish(subject, reply, &[&bytes[..head], &noise(n % 5_000, n as u64)].concat());
        }
        for subject in ["hg.all", "hg", "hg.n", "hg.n.zz", "hg.s.0", "hg.i.x.y.z"] {
            stranger.publish(subject, None, b"");
            stranger.publish(subject, None, &noise(60_000, 5));
        }
        (heard.len(), stranger)
    });
    let begin = Instant::now();
    while !disturbing.is_finished() || begin.elapsed() < Duration::from_secs(5) {
        for (api, uid, client) in [(a.api().await, "bob", &mut bob), (b.api().await, "anna", &mut anna)] {
            assert_eq!(push(&api, uid, &sent.to_string()).await, "ok");
            client.expect(sent.to_string()).await;
        }
        assert_eq!(push(&a.api().await, "nobody", "x").await, "offline");
        let mut guest = b.login(&format!("guest{sent}")).await;
        assert_eq!(push(&a.api().await, &format!("guest{sent}"), "x").await, "ok");
        guest.expect("x").await;
        guest.close().await;
        sent += 1;
    }
    let (frames, _stranger) = disturbing.await.expect("it publishes");
    println!("{frames} frames repeated, cut and changed");
    let all = post(&a.api().await, "everyone=true", "the end").await;
    assert_eq!((outcome(&all), all.json()["reached"].as_u64()), ("ok".to_owned(), Some(2)));
    for client in [&mut anna, &mut bob] {
        client.expect("the end").await;
        client.expect_nothing().await;
    }
}

#[tokio::test]
async fn frames_of_another_version_are_dropped_counted_and_said() {
    const DROPPED: &str = r#"hotgate_cluster_frames_dropped_total{reason="version"}"#;
    let Some((nats, [a, b])) = start::<2>("").await else { return };
    let (mut anna, mut bob) = (a.login("anna").await, b.login("bob").await);
    let mut stranger = Stranger::connect(&nats);
    let listening = spawn_blocking(move || (stranger.listen("hg.>", Duration::from_secs(2)), stranger));
    while !listening.is_finished() {
        assert_eq!(push(&a.api().await, "bob", "x").await, "ok");
        bob.expect("x").await;
    }
    let (mut heard, mut stranger) = listening.await.expect("it listens");
    // The first byte is the version. A later version may mean anything by the others.
    heard.retain(|heard| ["hg.all", "hg.n"].iter().any(|subject| heard.subject.starts_with(subject)));
    let of_all = heard.iter().filter(|heard| heard.subject == "hg.all").count();
    assert!(0 < of_all && of_all < heard.len(), "beats and commands: {} of {}", of_all, heard.len());
    let admins = [a.admin().await, b.admin().await];
    for admin in &admins {
        assert_eq!(admin.metric(DROPPED).await, 0.0);
    }
    let marks = [a.log().mark(), b.log().mark()];
    for Heard { subject, reply, bytes } in &heard {
        stranger.publish(subject, reply.as_deref(), &[&[bytes[0] + 1], &bytes[1..]].concat());
    }
    // Those for all reach both gateways, the others one.
    let expected = (heard.len() + of_all) as f64;
    eventually("all are counted", async || {
        admins[0].metric(DROPPED).await + admins[1].metric(DROPPED).await == expected
    })
    .await;
    for (gateway, mark) in [&a, &b].into_iter().zip(marks) {
        logged(gateway, mark, "a gateway of a version that this one cannot speak with").await;
        // Once, however many there are.
        let said = gateway.log().since(mark);
        assert_eq!(said.iter().filter(|line| line.says("cannot speak with")).count(), 1);
    }
    for (api, uid, client) in [(a.api().await, "bob", &mut bob), (b.api().await, "anna", &mut anna)] {
        assert_eq!(push(&api, uid, "still here").await, "ok");
        client.expect("still here").await;
        client.expect_nothing().await;
    }
}

#[tokio::test]
async fn two_clusters_may_share_a_nats_server() {
    let Some(nats) = NatsSetup::new().start().await else { return };
    let of = |subjects: &str| setup(&nats, &format!("subjects = \"{subjects}\"\nnode = 1"));
    let [a, b] = join([of("red"), of("blue.cluster")]).await;
    let (_anna, mut bob) = (a.login("anna").await, b.login("bob").await);
    assert_eq!(push(&b.api().await, "anna", "x").await, "offline");
    assert_eq!(push(&a.api().await, "bob", "x").await, "offline");
    assert_eq!(push(&b.api().await, "bob", "own").await, "ok");
    bob.expect("own").await;
}
