//! Frames under arbitrary bytes, and there and back.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn stamps() -> impl Strategy<Value = Stamp> {
    (1..u64::MAX).prop_map(Stamp)
}

fn rows() -> impl Strategy<Value = Row> {
    (stamps(), 1..u32::MAX).prop_map(|(newest, count)| Row { newest, count })
}

fn times() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_micros)
}

fn targets() -> impl Strategy<Value = Target> {
    prop_oneof![Just(Target::All), stamps().prop_map(Target::Uid)]
}

fn payloads() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn departures() -> impl Strategy<Value = Departure> {
    (any::<u64>(), stamps()).prop_map(|(key, stamp)| Departure { key: UidKey(key), stamp })
}

fn bodies() -> impl Strategy<Value = Body> {
    let heard = vec((any::<u64>().prop_map(Incarnation), any::<u64>()), 0..20);
    let beat = (any::<[u64; 4]>(), any::<[bool; 2]>(), times(), stamps(), heard);
    let changes = vec((any::<u64>(), proptest::option::of(rows())), 0..20);
    let many_rows = vec((any::<u64>().prop_map(UidKey), rows()), 0..20);
    let part =
        (any::<[u64; 2]>(), any::<[u16; 3]>(), any::<bool>(), many_rows, vec((any::<u64>(), departures()), 0..9));
    let command = (targets(), times(), payloads());
    let command = command.prop_map(|(target, deadline, body)| Command { target, deadline, body });
    let segment = (any::<u64>(), targets(), times(), 0..=MAX_COMMAND as u32, any::<u32>(), payloads());
    let reply = prop_oneof![Just(Reply::Expired), payloads().prop_map(Reply::Done)];
    let answers = (vec((any::<u64>(), reply), 0..20), vec(any::<(u64, u64)>(), 0..20));
    prop_oneof![
        beat.prop_map(|([number, batches, rows, hash], [ready, draining], boot, started, heard)| {
            let digest = Digest { rows, hash };
            Body::Beat(Beat { number, started, ready, draining, boot, batches, digest, heard })
        }),
        (any::<u64>(), changes, vec(departures(), 0..20)).prop_map(|(number, changes, departures)| {
            let changes = changes.into_iter().map(|(key, row)| Change { key: UidKey(key), row }).collect();
            Body::Batch(Batch { number, changes, departures })
        }),
        Just(Body::Leave),
        any::<(u64, u16)>().prop_map(|(request, from)| Body::SnapshotRequest { request, from }),
        part.prop_map(|([request, as_of], [from, part, next], end, rows, departures)| {
            Body::SnapshotPart(SnapshotPart { request, as_of, from, part, next, end, rows, departures })
        }),
        (any::<u64>(), vec(command, 0..9)).prop_map(|(first, commands)| Body::Commands { first, commands }),
        segment.prop_map(|(number, target, deadline, total, offset, bytes)| {
            Body::Segment(Segment { number, target, deadline, total, offset, bytes })
        }),
        answers.prop_map(|(replies, skipped)| Body::Answers(Answers { replies, skipped })),
        any::<(u64, u64)>().prop_map(|(batch, after)| Body::Confirm { batch, after }),
        any::<u64>().prop_map(|number| Body::Probe { number }),
        any::<[u64; 3]>().prop_map(|[number, heard, batches]| Body::Pong { number, heard, batches }),
    ]
}

fn written(body: &Body) -> Bytes {
    encode(NodeId::from_low_bits(7), Incarnation(8), Fingerprint(9), body)
}

fn read(mut frame: Bytes) -> Result<(Header, Body), Unreadable> {
    let header = take_header(&mut frame)?;
    Ok((header, decode(header.kind, frame)?))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn what_was_written_is_read(body in bodies()) {
        let (header, again) = read(written(&body)).unwrap();
        prop_assert_eq!((header.node.get(), header.incarnation.0, header.secret.0), (7, 8, 9));
        prop_assert_eq!(again, body);
    }

    #[test]
    fn a_frame_that_is_cut_or_has_more_is_refused(body in bodies(), cut in any::<prop::sample::Index>()) {
        let whole = written(&body);
        prop_assert!(read(whole.slice(..cut.index(whole.len()))).is_err());
        prop_assert!(read([&whole[..], b"x"].concat().into()).is_err());
    }

    #[test]
    fn a_changed_byte_is_no_panic(body in bodies(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = written(&body).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = read(bytes.into());
    }

    #[test]
    fn arbitrary_bytes_are_no_panic(kind in 0..14_u8, bytes in vec(any::<u8>(), 0..300)) {
        let _ = read(bytes.clone().into());
        let _ = decode(kind, bytes.into());
    }
}

#[test]
fn versions_and_kinds_of_the_future_are_told_apart() {
    let mut frame = written(&Body::Leave).to_vec();
    frame[1] = 99;
    assert_eq!(read(frame.clone().into()), Err(Unreadable::Kind));
    frame[0] = VERSION + 1;
    assert_eq!(read(frame.into()), Err(Unreadable::Version));
}

#[test]
fn a_list_reserves_no_memory_for_entries_that_are_not_there() {
    // 65,535 changes, but no bytes for them.
    let mut frame = Bytes::from([&[0; 8][..], &[255, 255], &[0; 30]].concat());
    assert_eq!(decode(2, frame.split_off(0)), Err(Unreadable::Malformed));
}
