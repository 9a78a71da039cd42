use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

use super::*;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn trace() -> &'static Trace {
    Box::leak(Box::new(Trace::new()))
}

fn handshake() -> TraceEvent {
    TraceEvent::Handshake { address: (HERE, 5000).into(), path: "/".into() }
}

fn closed() -> TraceEvent {
    TraceEvent::Closed { code: Some(1000), reason: "".into(), cause: "client" }
}

fn unwanted() -> TraceEvent {
    unreachable!("nobody wants this event")
}

/// Watches a uid.
fn watch(trace: &'static Trace, uid: &'static str) -> Watch {
    trace.watch(Watched::Uid(uid.into())).unwrap()
}

/// Returns the names of the events so far.
fn names(watch: &mut Watch) -> Vec<String> {
    let mut names = Vec::new();
    while let Ok(line) = watch.lines.try_recv() {
        let line: Value = serde_json::from_str(&line).unwrap();
        names.push(line["what"].as_str().unwrap().to_owned());
    }
    names
}

#[test]
fn nothing_is_made_while_nobody_watches() {
    let trace = trace();
    trace.opened(ConnectionId(1), HERE, unwanted);
    trace.record(ConnectionId(1), unwanted);
    trace.logged_in(ConnectionId(1), &"anna".into());
    trace.missed(&"anna".into(), unwanted);
    trace.ended(ConnectionId(1), unwanted);
}

#[test]
fn a_uid_is_followed_from_its_handshake_to_its_end_and_others_are_not() {
    let trace = trace();
    let mut anna = watch(trace, "anna");
    for (id, uid) in [(1, "anna"), (2, "bob")] {
        let id = ConnectionId(id);
        trace.opened(id, HERE, handshake);
        trace.record(id, || TraceEvent::Packet(Payload::of_bytes(b"x")));
        trace.logged_in(id, &uid.into());
    }
    trace.record(ConnectionId(2), unwanted);
    trace.record(ConnectionId(3), unwanted);
    trace.missed(&"bob".into(), unwanted);
    trace.ended(ConnectionId(1), closed);
    trace.record(ConnectionId(1), unwanted);
    trace.missed(&"anna".into(), || TraceEvent::Missed(Payload::of_bytes(b"x")));
    assert_eq!(names(&mut anna), ["handshake", "packet", "login", "closed", "missed"]);
}

#[test]
fn a_line_says_when_who_and_what() {
    let trace = trace();
    let mut anna = watch(trace, "anna");
    trace.logged_in(ConnectionId(u64::MAX), &"anna".into());
    let mut line: Value = serde_json::from_str(&anna.lines.try_recv().unwrap()).unwrap();
    assert!(line["at"].take().as_str().unwrap().ends_with('Z'));
    let expected = json!({"at": null, "connection": "18446744073709551615", "uid": "anna", "what": "login"});
    assert_eq!(line, expected);
}

#[test]
fn open_connections_and_addresses_are_followed_too() {
    let trace = trace();
    let mut anna = watch(trace, "anna");
    anna.follow(ConnectionId(7), &"anna".into());
    let mut here = trace.watch(Watched::Address(HERE)).unwrap();
    let mut eighth = trace.watch(Watched::Connection(ConnectionId(8))).unwrap();
    trace.record(ConnectionId(7), closed);
    trace.record(ConnectionId(8), closed);
    trace.opened(ConnectionId(9), HERE, handshake);
    trace.ended(ConnectionId(9), closed);
    assert_eq!(names(&mut anna), ["closed"]);
    assert_eq!(names(&mut here), ["handshake", "closed"]);
    assert_eq!(names(&mut eighth), ["closed"]);
}

#[test]
fn connections_with_the_same_low_bits_are_kept_apart() {
    let trace = trace();
    let (one, other) = (ConnectionId(1), ConnectionId(1 + BITS as u64));
    let mut first = trace.watch(Watched::Connection(one)).unwrap();
    let mut second = trace.watch(Watched::Connection(other)).unwrap();
    trace.ended(one, closed);
    assert!(trace.follows(other), "the other is still followed");
    trace.record(other, closed);
    assert_eq!((names(&mut first).len(), names(&mut second).len()), (1, 1));
}

#[test]
fn a_watch_that_ends_leaves_nothing() {
    let trace = trace();
    let anna = watch(trace, "anna");
    let connection = trace.watch(Watched::Connection(ConnectionId(1))).unwrap();
    trace.opened(ConnectionId(2), HERE, handshake);
    drop(anna);
    assert!(!trace.follows(ConnectionId(2)) && trace.follows(ConnectionId(1)));
    drop(connection);
    assert!(!trace.is_watched() && !trace.follows(ConnectionId(1)));
    assert!(trace.state.lock().connections.is_empty());
}

#[test]
fn everything_is_bounded() {
    let trace = trace();
    let mut watches: Vec<_> = (0..MAX_WATCHERS).map(|_| watch(trace, "anna")).collect();
    assert_eq!(trace.watch(Watched::Uid("anna".into())).unwrap_err(), TooManyWatchers);
    for id in 0..MAX_CONNECTIONS as u64 + 10 {
        trace.opened(ConnectionId(id), HERE, handshake);
    }
    assert_eq!(trace.state.lock().connections.len(), MAX_CONNECTIONS);
    for _ in 0..MAX_HELD {
        trace.record(ConnectionId(0), handshake);
    }
    trace.logged_in(ConnectionId(0), &"anna".into());
    assert_eq!(names(&mut watches[0]).len(), MAX_HELD + 1);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_is_too_slow_is_told_how_much_it_lost() {
    let trace = trace();
    let mut all = trace.watch(Watched::Connection(ConnectionId(1))).unwrap();
    let record = || trace.record(ConnectionId(1), closed);
    (0..EVENTS_PER_SECOND + 500).for_each(|_| record());
    assert_eq!(names(&mut all).len(), EVENTS_PER_SECOND as usize);
    tokio::time::advance(std::time::Duration::from_secs(2)).await;
    record();
    let lost: Value = serde_json::from_str(&all.lines.try_recv().unwrap()).unwrap();
    assert_eq!(lost, json!({"what": "lost", "lines": 500}));
    assert_eq!(names(&mut all), ["closed"]);
}
