//! Compares the inbox with tungstenite, and tests the limits that tungstenite does not have.

use std::io::{Cursor, Read, Write};

use proptest::prelude::*;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error};
use tokio_tungstenite::tungstenite::protocol::{Message as Theirs, Role, WebSocket, WebSocketConfig};

use super::super::fuzz::read;
use super::budget::FREE;
use super::*;

const MAX_MESSAGE: usize = 1000;

/// The result of reading some bytes: messages, the payloads of pings, and the close code.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    messages: Vec<Message>,
    pings: Vec<Vec<u8>>,
    /// The code of the client's close frame, or of ours.
    closed: Option<u16>,
}

/// Reads bytes that arrive in these parts with the inbox.
fn ours<'a>(parts: impl IntoIterator<Item = &'a [u8]>, budget: &Arc<InboxBudget>) -> Outcome {
    let (frames, error) = read(parts, MAX_MESSAGE, budget);
    let mut outcome = Outcome { closed: error.map(|reason| reason.code), ..Outcome::default() };
    for frame in frames {
        match frame {
            Frame::Message(message) => outcome.messages.push(message),
            Frame::Ping(payload) => outcome.pings.push(payload),
            Frame::Fragment | Frame::Pong => {}
            Frame::Close(code) => outcome.closed = Some(code.unwrap_or(1000)),
        }
    }
    outcome
}

/// A stream that returns these bytes and ignores all writes.
struct Stream(Cursor<Vec<u8>>);

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Reads the same bytes with tungstenite.
fn theirs(bytes: &[u8]) -> Outcome {
    let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    let mut socket = WebSocket::from_raw_socket(Stream(Cursor::new(bytes.to_vec())), Role::Server, Some(config));
    let mut outcome = Outcome::default();
    loop {
        match socket.read() {
            Ok(Theirs::Text(text)) => outcome.messages.push(Message::Text(text.as_str().into())),
            Ok(Theirs::Binary(bytes)) => outcome.messages.push(Message::Binary(bytes)),
            Ok(Theirs::Ping(payload)) => outcome.pings.push(payload.to_vec()),
            Ok(Theirs::Close(frame)) => {
                outcome.closed = Some(frame.map_or(1000, |frame| frame.code.into()));
                return outcome;
            }
            Ok(_) => {}
            Err(Error::Protocol(error)) => {
                let end = error.to_string().contains("without closing handshake");
                outcome.closed = (!end).then_some(1002);
                return outcome;
            }
            Err(Error::Utf8(_)) => {
                outcome.closed = Some(1007);
                return outcome;
            }
            Err(Error::Capacity(CapacityError::MessageTooLong { .. })) => {
                outcome.closed = Some(1009);
                return outcome;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Returns a frame of a client, valid or almost valid, with its length in the shortest form.
fn frame(first: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..126 => bytes.push(mask | length as u8),
        length => {
            bytes.push(mask | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
    }
    let key = [0x37, 0xfa, 0x21, 0x3d];
    if masked {
        bytes.extend(key);
    }
    bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| if masked { byte ^ key } else { *byte }));
    bytes
}

fn some_frame() -> impl Strategy<Value = Vec<u8>> {
    let opcode = prop_oneof![6 => Just(0u8), 4 => Just(1), 3 => Just(2), 3 => Just(9), 1 => Just(10), 1 => Just(8), 1 => 0u8..16];
    let fin = prop_oneof![2 => Just(0x80u8), 1 => Just(0)];
    let reserved = prop_oneof![60 => Just(0u8), 1 => (1u8..8).prop_map(|bits| bits << 4)];
    let text = prop_oneof![
        4 => "[a-zé€😀]{0,60}".prop_map(String::into_bytes),
        2 => proptest::collection::vec(any::<u8>(), 0..200),
        1 => "é{100,600}".prop_map(String::into_bytes),
        1 => Just("é".as_bytes()[..1].to_vec()),
        1 => Just("é".as_bytes()[1..].to_vec()),
        // Not 1014, which tungstenite does not know yet.
        1 => prop_oneof![1000u16..1014, 1015u16..1020].prop_map(|code| code.to_be_bytes().to_vec()),
    ];
    let masked = prop_oneof![60 => Just(true), 1 => Just(false)];
    (fin, reserved, opcode, masked, text)
        .prop_map(|(fin, reserved, opcode, masked, text)| frame(fin | reserved | opcode, masked, &text))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// The inbox reads valid and invalid frames, cut anywhere, like tungstenite.
    #[test]
    fn it_reads_what_tungstenite_reads(
        frames in proptest::collection::vec(some_frame(), 0..12),
        cuts in proptest::collection::vec(1usize..300, 1..20),
    ) {
        let bytes = frames.concat();
        let budget = Arc::new(InboxBudget::new(1 << 20));
        let mut parts = Vec::new();
        let mut left = &bytes[..];
        for cut in cuts.iter().cycle() {
            if left.is_empty() {
                break;
            }
            let (part, rest) = left.split_at((*cut).min(left.len()));
            parts.push(part);
            left = rest;
        }
        let (ours, theirs) = (ours(parts, &budget), theirs(&bytes));
        // A frame with two errors may be refused for either error, and the inbox does not wait for the end of the
        // frame.
        let (our_end, their_end) = (ours.closed, theirs.closed);
        let early = our_end == Some(1002) && their_end != Some(1002);
        prop_assert!(our_end == their_end || early, "closed with {our_end:?}, not with {their_end:?}");
        prop_assert_eq!(ours.messages, theirs.messages);
        prop_assert_eq!(ours.pings, theirs.pings);
        prop_assert_eq!(budget.used(), 0);
    }

    #[test]
    fn nothing_that_arrives_breaks_it(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let budget = Arc::new(InboxBudget::new(1 << 20));
        ours(bytes.chunks(300), &budget);
        prop_assert_eq!(budget.used(), 0);
    }
}

/// Creates the inbox of an authenticated client.
fn inbox(max_message: usize, budget: &Arc<InboxBudget>) -> Inbox {
    let mut inbox = Inbox::new(Vec::new(), max_message, budget.clone());
    inbox.allow(max_message);
    inbox
}

#[test]
fn a_header_takes_no_memory_for_what_it_announces() {
    let budget = Arc::new(InboxBudget::new(1 << 30));
    let mut inbox = inbox(1 << 20, &budget);
    let announced = [&[0x82, 0xff][..], &(1u64 << 20).to_be_bytes(), &[0; 4]].concat();
    assert_eq!(inbox.arrived(&[&announced[..], &[0; 10_000]].concat()), Ok(None));
    assert_eq!(inbox.payload.capacity(), 10_000);
    assert_eq!(budget.used(), 10_000 - FREE);
    assert_eq!(inbox.arrived(&[0; 10]), Ok(None));
    assert_eq!(inbox.payload.capacity(), 20_000);
}

#[test]
fn all_inboxes_together_hold_no_more_than_the_budget() {
    let budget = Arc::new(InboxBudget::new(100_000));
    let begun = frame(0x02, true, &[0; 30_000]);
    let mut inboxes: Vec<_> = (0..5).map(|_| inbox(1 << 20, &budget)).collect();
    let mut refused = 0;
    for inbox in &mut inboxes {
        match inbox.arrived(&begun) {
            Ok(frame) => assert_eq!(frame, Some(Frame::Fragment)),
            Err(reason) => {
                assert_eq!(reason.code, 1013);
                refused += 1;
            }
        }
    }
    assert_eq!((refused, budget.used()), (2, 3 * (30_000 - FREE)));
    // A complete message takes nothing from the budget, and a short payload takes nothing.
    let mut late = inbox(1 << 20, &budget);
    assert!(matches!(late.arrived(&frame(0x82, true, &[0; 30_000])), Ok(Some(Frame::Message(_)))));
    assert_eq!(late.arrived(&frame(0x02, true, &[0; FREE])), Ok(Some(Frame::Fragment)));
    // A message that ends gives back its memory.
    assert!(matches!(inboxes[0].arrived(&frame(0x80, true, b"")), Ok(Some(Frame::Message(_)))));
    assert_eq!(budget.used(), 2 * (30_000 - FREE));
    drop(inboxes);
    assert_eq!(budget.used(), 0);
}

#[test]
fn whole_messages_that_wait_count_too() {
    let budget = Arc::new(InboxBudget::new(6000));
    let waiting = frame(0x82, true, &[0; 1000]).repeat(10);
    let mut first = inbox(1000, &budget);
    assert!(matches!(first.arrived(&waiting), Ok(Some(Frame::Message(_)))));
    assert!(budget.used() > 0);
    assert_eq!(inbox(1000, &budget).arrived(&waiting).unwrap_err().code, 1013);
    for _ in 1..10 {
        assert!(matches!(first.next(), Ok(Some(Frame::Message(_)))));
    }
    assert_eq!((first.next(), budget.used()), (Ok(None), 0));
}

#[test]
fn only_the_same_message_grows() {
    let budget = Arc::new(InboxBudget::new(1 << 20));
    let mut inbox = inbox(1000, &budget);
    assert_eq!(inbox.growth(), None);
    inbox.arrived(&frame(0x02, true, &[0; 10])).unwrap();
    assert_eq!((inbox.growth(), inbox.growth()), (None, Some(0)));
    inbox.arrived(&frame(0x89, true, &[0; 100])).unwrap();
    assert_eq!(inbox.growth(), Some(0), "a ping is no part of it");
    inbox.arrived(&frame(0x00, true, &[0; 20])).unwrap();
    assert_eq!(inbox.growth(), Some(20));
    inbox.arrived(&[frame(0x80, true, &[]), frame(0x02, true, &[0; 50])].concat()).unwrap();
    assert_eq!(inbox.next(), Ok(Some(Frame::Fragment)));
    assert_eq!((inbox.growth(), inbox.growth()), (None, Some(0)), "another has begun");
}

#[test]
fn fragments_cost_no_more_than_their_allowance() {
    let budget = Arc::new(InboxBudget::new(1 << 20));
    let mut inbox = inbox(1000, &budget);
    inbox.arrived(&frame(0x01, true, b"")).unwrap();
    let mut fragments = 0;
    let refused = loop {
        match inbox.arrived(&frame(0x00, true, b"")) {
            Ok(frame) => assert_eq!(frame, Some(Frame::Fragment)),
            Err(reason) => break reason,
        }
        fragments += 1;
    };
    assert_eq!((refused.code, fragments), (1009, (1000 + FRAGMENT_ALLOWANCE) / 6));
}

#[test]
fn strangers_hold_at_most_half_of_the_budget() {
    let budget = Arc::new(InboxBudget::new(100_000));
    let begun = frame(0x02, true, &[0; 30_000]);
    let stranger = || Inbox::new(Vec::new(), 1 << 20, budget.clone());
    let (mut first, mut second, mut third) = (stranger(), stranger(), stranger());
    assert_eq!(first.arrived(&begun), Ok(Some(Frame::Fragment)));
    assert_eq!(second.arrived(&begun).unwrap_err().code, 1013);
    assert_eq!(inbox(1 << 20, &budget).arrived(&begun), Ok(Some(Frame::Fragment)));
    // After authentication a client is no stranger any more, and the memory that it uses does not count as a
    // stranger's.
    first.allow(1 << 20);
    assert_eq!(third.arrived(&begun), Ok(Some(Frame::Fragment)));
    drop((first, second, third));
    assert_eq!((budget.used(), budget.strangers()), (0, 0));
}

#[test]
fn what_is_no_longer_held_is_given_back_in_part() {
    let budget = Arc::new(InboxBudget::new(1 << 20));
    let mut inbox = inbox(1 << 20, &budget);
    inbox.arrived(&frame(0x02, true, &[0; 500_000])).unwrap();
    let waiting = frame(0x82, true, &[0; 2000]).repeat(5);
    let rest = [frame(0x80, true, b""), waiting].concat();
    assert!(matches!(inbox.arrived(&rest), Ok(Some(Frame::Message(_)))));
    assert!(budget.used() < 20_000, "{}", budget.used());
}

#[test]
fn who_is_to_be_closed_holds_nothing_and_is_still_understood() {
    let budget = Arc::new(InboxBudget::new(1 << 20));
    let mut inbox = inbox(1 << 20, &budget);
    let message = frame(0x81, true, &[b'x'; 50_000]);
    let (head, tail) = message.split_at(30_001);
    assert_eq!(inbox.arrived(head), Ok(None));
    assert!(budget.used() > 0);
    inbox.discard();
    assert_eq!((budget.used(), inbox.growth()), (0, None));
    assert!(matches!(inbox.arrived(tail), Ok(Some(Frame::Message(_)))));
    let fragments = [frame(0x01, true, &[b'x'; 20_000]), frame(0x80, true, &[b'y'; 20_000])].concat();
    assert_eq!(inbox.arrived(&fragments), Ok(Some(Frame::Fragment)));
    assert!(matches!(inbox.next(), Ok(Some(Frame::Message(_)))));
    assert_eq!(inbox.payload.capacity(), 0);
    assert_eq!(inbox.arrived(&frame(0x88, true, &1000_u16.to_be_bytes())), Ok(Some(Frame::Close(Some(1000)))));
}
