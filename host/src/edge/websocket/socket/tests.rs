//! Tests of one WebSocket on a stream in memory. The clock of the runtime is paused: it goes on when all tasks wait.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Wake, Waker};

use tokio::time::{Instant, sleep};

use super::super::tests::{BYE, CLOSE, PING, PONG, TEXT, beating, socket, text, wire};
use super::*;
use crate::base::message::{Cause, ConnectionId};
use crate::hub::outbox::{Budget, Close, Outbox};

const FLUSH: Duration = Duration::from_millis(700);
const PATIENCE: Duration = Duration::from_millis(300);

/// Why the gateway closes a connection in these tests.
fn bye() -> End {
    End::Closing(Close { reason: BYE, cause: Cause::Plugin })
}

/// Records whether a task was woken.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

#[tokio::test]
async fn a_client_that_sends_no_messages_takes_turns_with_others() {
    const FRAMES: usize = 2048;
    let empty_ping = &[0x89, 0x80, 0, 0, 0, 0];
    let mut fragments = b"\x01\x80\0\0\0\0".to_vec();
    fragments.extend(b"\0\x80\0\0\0\0".repeat(FRAMES - 1));
    for frames in [empty_ping.repeat(FRAMES), fragments] {
        let (mut client, mut socket, _) = socket(1 << 20);
        client.bytes(&frames).await;

        let flag = Arc::new(Flag::default());
        let waker = Waker::from(flag.clone());
        let mut receive = pin!(socket.receive());
        let mut turns = 1;
        while {
            assert!(receive.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            flag.0.swap(false, Relaxed)
        } {
            turns += 1;
        }
        assert!(turns >= 8, "{FRAMES} frames were taken in {turns} turns");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_keeps_sending_gets_its_messages_after_a_few_packets() {
    let (mut client, mut socket, link) = socket(1 << 20);
    for _ in 0..2 * PACKETS_BEFORE_SEND {
        client.send(TEXT, b"packet").await;
    }
    link.outbox.push(text("answer")).unwrap();
    let mut reading = tokio::spawn(async move { client.expect("answer").await });
    for packets in 0.. {
        tokio::task::yield_now().await;
        if reading.is_finished() {
            assert_eq!(packets, PACKETS_BEFORE_SEND + 1, "the packets that were received before");
            return (&mut reading).await.unwrap();
        }
        assert_eq!(socket.receive().await, Ok(text("packet")));
    }
}

#[tokio::test(start_paused = true)]
async fn messages_and_pings_are_sent_while_a_plugin_works() {
    let (mut client, mut socket, link) = socket(1000);
    let (done, work) = tokio::sync::oneshot::channel();
    link.outbox.push(text("queued before")).unwrap();
    let working = async { assert_eq!(socket.sending(pin!(work)).await, Ok(Ok("done"))) };
    let reading = async {
        client.expect("queued before").await;
        link.outbox.push(text("queued meanwhile")).unwrap();
        client.expect("queued meanwhile").await;
        done.send("done").unwrap();
    };
    tokio::join!(working, reading);
}

#[tokio::test(start_paused = true)]
async fn a_ping_is_answered_although_no_packet_comes() {
    let (mut client, mut socket, link) = socket(1000);
    client.send(PING, b"are you there?").await;
    client.send(PONG, b"unasked").await;
    let reading = async {
        assert_eq!(client.frame().await, (PONG, b"are you there?".to_vec()));
        client.send(CLOSE, b"").await;
    };
    let (end, ()) = tokio::join!(socket.receive(), reading);
    assert_eq!(end, Err(End::ByClient(CloseReason::new(1000, ""))), "1000 stands for no code");
    assert!(link.outbox.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_closes_in_time_sees_an_orderly_end() {
    let ((mut client, socket, link), end) = (socket(1000), bye());
    link.outbox.push(text("last")).unwrap();
    let begin = Instant::now();
    let closing = async {
        client.expect("last").await;
        client.expect_close(3000).await;
        // A packet that was on its way is no answer.
        client.send(TEXT, b"late").await;
        timeout(PATIENCE - Duration::from_millis(1), client.ended()).await.unwrap_err();
        client.close(3000).await;
        client.ended().await;
        assert!(!client.is_cut_off());
        drop(client);
    };
    tokio::join!(socket.finish(&end, FLUSH, PATIENCE), closing);
    assert_eq!(begin.elapsed(), PATIENCE - Duration::from_millis(1));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_answer_the_close_frame_is_cut_off_after_the_patience() {
    let (mut client, socket, _) = socket(1000);
    let begin = Instant::now();
    socket.finish(&bye(), FLUSH, PATIENCE).await;
    assert_eq!(begin.elapsed(), PATIENCE);
    client.expect_close(3000).await;
    assert!(client.is_cut_off());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_but_keeps_its_side_open_is_cut_off_after_the_patience() {
    let (mut client, socket, _) = socket(1000);
    let begin = Instant::now();
    client.close(3000).await;
    socket.finish(&bye(), FLUSH, PATIENCE).await;
    assert_eq!(begin.elapsed(), PATIENCE);
    client.expect_close(3000).await;
    client.ended().await;
    assert!(client.is_cut_off());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_cut_off_after_the_time_for_sending() {
    let (client, socket, link) = socket(10);
    link.outbox.push(text("more than ten bytes")).unwrap();
    let begin = Instant::now();
    socket.finish(&bye(), FLUSH, PATIENCE).await;
    assert_eq!(begin.elapsed(), FLUSH);
    assert!(client.is_cut_off());
}

#[tokio::test(start_paused = true)]
async fn a_slow_peer_has_its_own_time_to_read_and_its_own_to_answer() {
    let ((mut client, socket, link), end) = (socket(10), bye());
    link.outbox.push(text("more than ten bytes")).unwrap();
    let reading = async {
        sleep(FLUSH - Duration::from_millis(1)).await;
        client.expect("more than ten bytes").await;
        client.expect_close(3000).await;
        sleep(PATIENCE - Duration::from_millis(1)).await;
        client.close(3000).await;
        client.ended().await;
        assert!(!client.is_cut_off());
        drop(client);
    };
    tokio::join!(socket.finish(&end, FLUSH, PATIENCE), reading);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_waits_until_its_own_data_is_read_still_gets_the_close_frame() {
    let ((mut client, socket, link), end) = (socket(10), bye());
    link.outbox.push(text("more than ten bytes")).unwrap();
    let writing_first = async {
        client.send(TEXT, &[b'x'; 500]).await;
        client.expect("more than ten bytes").await;
        client.expect_close(3000).await;
        client.close(3000).await;
        client.ended().await;
        drop(client);
    };
    tokio::join!(socket.finish(&end, FLUSH, PATIENCE), writing_first);
}

#[tokio::test(start_paused = true)]
async fn a_close_frame_of_the_client_is_answered_without_waiting_for_another() {
    let (mut client, mut socket, _) = socket(1000);
    client.close(4321).await;
    let end = socket.receive().await.unwrap_err();
    let begin = Instant::now();
    let reading = async {
        client.expect_close(4321).await;
        client.ended().await;
        drop(client);
    };
    tokio::join!(socket.finish(&end, FLUSH, PATIENCE), reading);
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_probe_finds_a_dead_peer_while_nobody_reads() {
    let link =
        beating(Duration::from_secs(30)).watch(ConnectionId::next(), Outbox::new(1, Arc::new(Budget::new(1, 1))));
    let (client, wire) = wire(1000, 0, &link);
    let mut socket = Socket::new(wire, link);
    assert_eq!(socket.sending(pin!(sleep(Duration::from_secs(100)))).await, Ok(()));
    client.kernel.is_dead.store(true, Relaxed);
    let begin = Instant::now();
    assert_eq!(socket.sending(pin!(sleep(Duration::from_secs(100)))).await, Err(End::Lost));
    assert!(begin.elapsed() <= Duration::from_secs(31), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_a_connection_has_carried_is_counted_to_its_last_message() {
    let (mut client, mut socket, link) = socket(1 << 20);
    for packet in [&b"one"[..], b"", b"three"] {
        client.send(TEXT, packet).await;
        socket.receive().await.unwrap();
    }
    client.send(PING, b"no message").await;
    let large = "x".repeat(70_000);
    link.outbox.push(text("first")).unwrap();
    let sending = sleep(Duration::from_millis(1500));
    assert_eq!(socket.sending(pin!(sending)).await, Ok(()));
    link.outbox.push(text(&large)).unwrap();
    let reading = async {
        client.expect("first").await;
        client.expect(&large).await;
        client.expect_close(3000).await;
        // Nobody takes it any more.
        client.send(TEXT, b"late").await;
        client.close(3000).await;
        client.ended().await;
        drop(client);
    };
    let end = bye();
    let (totals, ()) = tokio::join!(socket.finish(&end, FLUSH, PATIENCE), reading);
    let traffic = |messages, bytes| Traffic { messages, bytes };
    let (received, sent) = (traffic(3, 8), traffic(2, 5 + 70_000));
    assert_eq!(totals, Totals { lasted: Duration::from_millis(1500), received, sent });
}
