//! Tests of frames on a stream in memory. The clock is paused: it goes on when all tasks wait.

use std::future::poll_fn;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::tests::{
    BINARY, BYE, CLOSE, Client, PING, PONG, Pipe, TEXT, beating, frame, link, text, wire as wire_of,
};
use super::*;
use crate::base::message::ConnectionId;
use crate::hub::outbox::Budget;

/// Returns a client, the wire of its connection, and their link. `buffer` bytes may be on their way.
fn wire(buffer: usize) -> (Client, Wire<Pipe>, Arc<Link>) {
    let link = link();
    let (client, wire) = wire_of(buffer, 0, &link);
    (client, wire, link)
}

/// Sends everything that waits.
async fn send<S: Stream>(wire: &mut Wire<S>, outbox: &Outbox) {
    poll_fn(|cx| wire.poll_send(cx, outbox)).await;
}

/// Reads the next frame.
async fn receive<S: Stream>(wire: &mut Wire<S>) -> Result<Frame, End> {
    poll_fn(|cx| wire.poll_frame(cx)).await
}

/// Polls once, with a waker that does nothing.
fn once<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    poll(&mut Context::from_waker(std::task::Waker::noop()))
}

#[tokio::test(start_paused = true)]
async fn messages_of_all_sizes_arrive_whole_and_in_order_through_a_stream_that_takes_a_few_bytes_at_a_time() {
    let sizes = [0, 1, 125, 126, LARGE - 1, LARGE, LARGE + 1, 3, BATCH, 65_535, 65_536, 70_000, 5, 2 * LARGE, LARGE];
    let payload = |index: usize| [b'a' + index as u8].repeat(sizes[index]);
    for buffer in [1, 7, 4096, 1 << 20] {
        let (mut client, mut wire, link) = wire(buffer);
        for index in 0..sizes.len() {
            let payload = payload(index);
            let message = match index % 2 {
                0 => Message::Binary(payload.into()),
                _ => Message::Text(String::from_utf8(payload).unwrap().into()),
            };
            link.outbox.push(message).unwrap();
        }
        let reading = async {
            for index in 0..sizes.len() {
                let (first, read) = client.frame().await;
                assert_eq!(first, if index % 2 == 0 { BINARY } else { TEXT }, "message {index}");
                assert!(read == payload(index), "message {index} has {} bytes", read.len());
            }
        };
        tokio::join!(send(&mut wire, &link.outbox), reading);
        assert_eq!(link.outbox.queued_bytes(), Ok(0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_frame_is_last_and_nothing_follows_it() {
    let (mut client, mut wire, link) = wire(100);
    let long = "x".repeat(10_000);
    for message in ["first", &long, "last"] {
        link.outbox.push(text(message)).unwrap();
    }
    wire.close(&BYE);
    wire.pong(b"before");
    assert!(once(|cx| wire.poll_send(cx, &link.outbox)).is_pending());
    let sent_later = async {
        send(&mut wire, &link.outbox).await;
        // Too late for all of these.
        link.outbox.push(text("late")).unwrap();
        wire.pong(b"late");
        wire.ping();
        send(&mut wire, &link.outbox).await;
        drop(wire);
    };
    let reading = async {
        assert_eq!(client.frame().await, (PONG, b"before".to_vec()));
        for message in ["first", &long, "last"] {
            client.expect(message).await;
        }
        assert_eq!(client.frame().await, (CLOSE, [&3000_u16.to_be_bytes()[..], b"bye"].concat()));
        client.ended().await;
    };
    tokio::join!(sent_later, reading);
}

#[tokio::test(start_paused = true)]
async fn a_reason_that_is_too_long_for_a_close_frame_is_cut_between_characters() {
    let (mut client, mut wire, link) = wire(1000);
    wire.close(&CloseReason { code: 3000, reason: "é".repeat(100).into() });
    send(&mut wire, &link.outbox).await;
    let (first, payload) = client.frame().await;
    assert_eq!((first, str::from_utf8(&payload[2..])), (CLOSE, Ok(&*"é".repeat(61))));
}

#[tokio::test(start_paused = true)]
async fn what_arrived_before_the_peer_was_gone_is_still_read() {
    let (mut client, mut wire, link) = wire(1000);
    client.send(TEXT, b"one").await;
    client.send(PING, b"two").await;
    drop(client);
    for _ in 0..2 {
        link.outbox.push(text("to nobody")).unwrap();
        send(&mut wire, &link.outbox).await;
        assert_eq!(link.outbox.register_waker(std::task::Waker::noop()), Ok(false), "no message waits");
    }
    assert_eq!(receive(&mut wire).await, Ok(Frame::Message(text("one"))));
    assert_eq!(receive(&mut wire).await, Ok(Frame::Ping(b"two".to_vec())));
    assert_eq!(receive(&mut wire).await, Err(End::Lost));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_its_pongs_gets_the_latest_ones_only() {
    let (mut client, mut wire, link) = wire(4096);
    // Eight pongs of 127 bytes fit, and the ninth replaces them.
    for number in 0..10 {
        wire.pong(&[number; 125]);
        assert!(wire.control.len() <= MAX_CONTROL);
    }
    send(&mut wire, &link.outbox).await;
    drop(wire);
    for number in [8, 9] {
        assert_eq!(client.frame().await, (PONG, vec![number; 125]));
    }
    client.ended().await;
}

#[tokio::test(start_paused = true)]
async fn a_pong_never_stands_inside_a_message() {
    let (mut client, mut wire, link) = wire(10);
    let long = "x".repeat(2 * LARGE);
    link.outbox.push(text(&long)).unwrap();
    link.outbox.push(text("next")).unwrap();
    assert!(once(|cx| wire.poll_send(cx, &link.outbox)).is_pending());
    wire.pong(b"now");
    let reading = async {
        client.expect(&long).await;
        assert_eq!(client.frame().await, (PONG, b"now".to_vec()));
        client.expect("next").await;
    };
    tokio::join!(send(&mut wire, &link.outbox), reading);
}

/// Sends a part of a message each second. Returns the time after which the heartbeat closes the connection, which it
/// does after 3 s of silence; `None` if it does not within a minute.
async fn closed_after(rate: usize, part: &[u8]) -> Option<Duration> {
    let second = Duration::from_secs(1);
    let link = beating(3 * second).watch(ConnectionId::next(), Outbox::new(1, Arc::new(Budget::new(1, 1))));
    let (mut client, mut wire) = wire_of(4096, rate, &link);
    // The parts come between two ticks of the heartbeat.
    sleep(second / 2).await;
    let begin = Instant::now();
    client.bytes(&frame(0x01, b"")).await;
    while once(|cx| wire.poll_frame(cx)).is_ready() {}
    while link.outbox.is_open() && begin.elapsed() < 60 * second {
        sleep(second).await;
        client.bytes(&frame(0x00, part)).await;
        while once(|cx| wire.poll_frame(cx)).is_ready() {}
    }
    (!link.outbox.is_open()).then(|| begin.elapsed())
}

#[tokio::test(start_paused = true)]
async fn an_unfinished_message_must_grow_at_the_least_rate_on_average() {
    let part = [b'x'; 100];
    assert_eq!(closed_after(100, &part).await, None, "exactly the least rate");
    assert_eq!(closed_after(0, b"").await, None, "without a least rate, any sign of life counts");
    // The heartbeat looks once a second, so it notices within a second.
    let empty = closed_after(100, b"").await.unwrap();
    assert!((3..=4).contains(&empty.as_secs()), "empty fragments are no growth: {empty:?}");
    let half = closed_after(200, &part).await.unwrap();
    assert!((6..=7).contains(&half.as_secs()), "each second prolongs the life by half a second: {half:?}");
}

#[tokio::test(start_paused = true)]
async fn the_response_to_the_upgrade_goes_with_what_is_queued_or_alone() {
    let response = || "HTTP/1.1 101 Switching Protocols\r\n\r\n".to_owned();
    let (mut client, wire, link) = wire(1 << 16);
    let mut wire = wire.beginning_with(response());
    link.outbox.push(text("hello")).unwrap();
    send(&mut wire, &link.outbox).await;
    assert_eq!(client.kernel.writes.load(Relaxed), 1);
    client.upgraded().await;
    client.expect("hello").await;

    let (mut client, wire, link) = self::wire(1 << 16);
    let mut wire = wire.beginning_with(response());
    link.outbox.push(text("not yet")).unwrap();
    wire.begin(&mut Context::from_waker(std::task::Waker::noop()));
    assert!(link.outbox.queued_bytes().is_ok_and(|bytes| bytes > 0));
    client.upgraded().await;
    send(&mut wire, &link.outbox).await;
    client.expect("not yet").await;
}
