//! What strangers send to the HTTP push API: nobody else notices.

use std::time::{Duration, Instant};

use hotgate_tests::{Admin, Gateway};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

const REQUESTS: usize = 10_000;
const AT_ONCE: usize = 32;

/// Numbers that look random, and are the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next(256) as u8).collect()
    }
}

/// The bytes of one bad request.
fn bad_request(api: &Admin, random: &mut Random) -> Vec<u8> {
    let stranger = Admin { token: "0".repeat(64), ..api.clone() };
    let length = random.next(4000) + 1;
    match random.next(7) {
        0 => random.bytes(length),
        1 => stranger.request("POST /v1/push?uid=anna").encode(),
        2 => [api.request("POST /v1/push?uid=nobody").and("Content-Length", "100000").encode(), random.bytes(length)]
            .concat(),
        3 => api.request("POST /v1/push?uid=nobody").and("X-Long", &"x".repeat(100_000)).encode(),
        4 => [
            api.request("POST /v1/stream").and("Transfer-Encoding", "chunked").encode(),
            b"ffffff\r\n".to_vec(),
            random.bytes(length),
        ]
        .concat(),
        5 => {
            let body = random.bytes(length);
            let head = api.request("POST /v1/batch").and("Content-Length", &body.len().to_string()).encode();
            [head, body].concat()
        }
        _ => {
            let mut request = api.request("POST /v1/push?uid=nobody").and("Content-Length", "2").encode();
            let at = random.next(request.len());
            request[at] = random.next(256) as u8;
            [request, b"hi".to_vec()].concat()
        }
    }
}

/// Sends bytes, ends, and returns the status of the answer, if there is one.
async fn send(api: &Admin, bytes: &[u8]) -> Option<u16> {
    let mut stream = TcpStream::connect(api.address).await.ok()?;
    _ = stream.write_all(bytes).await;
    _ = stream.shutdown().await;
    let mut answer = [0; 64];
    let count = timeout(Duration::from_secs(20), stream.read(&mut answer)).await.expect("an end").ok()?;
    str::from_utf8(&answer[..count]).ok()?.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_bad_requests_disturb_nobody() {
    let gateway = Gateway::start().await;
    let api = gateway.api().await;
    let mut anna = gateway.login("anna").await;
    let abuse = |seed: usize, count: usize| {
        let api = api.clone();
        async move {
            let mut random = Random(seed as u64);
            for _ in 0..count {
                let request = bad_request(&api, &mut random);
                let status = send(&api, &request).await;
                let is_allowed = status.is_none_or(|status| status < 500 || status == 503);
                assert!(is_allowed, "{status:?}: {:?}", String::from_utf8_lossy(&request[..request.len().min(300)]));
            }
        }
    };
    // The first ones grow buffers and caches.
    abuse(0, 500).await;
    let before = gateway.resident_bytes().unwrap_or_default();
    let mut strangers = JoinSet::new();
    for seed in 1..=AT_ONCE {
        strangers.spawn(abuse(seed, REQUESTS / AT_ONCE));
    }
    let (mut pushes, mut slowest) = (0, Duration::ZERO);
    while strangers.try_join_next().is_none_or(|stranger| stranger.is_ok()) && !strangers.is_empty() {
        let begin = Instant::now();
        let answer = api.send(api.request("POST /v1/push?uid=anna"), pushes.to_string().as_bytes()).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        anna.expect(pushes.to_string()).await;
        slowest = slowest.max(begin.elapsed());
        pushes += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    while let Some(stranger) = strangers.join_next().await {
        stranger.expect("every answer is allowed");
    }
    let after = gateway.resident_bytes().unwrap_or_default();
    eprintln!("{pushes} pushes meanwhile, the slowest took {slowest:?}; {before} bytes before, {after} after");
    assert!(pushes > 10 && slowest < Duration::from_secs(2), "{pushes} pushes, the slowest took {slowest:?}");
    assert!(after < before + (16 << 20), "{before} bytes before, {after} after");
    anna.expect_nothing().await;
}
