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

impl Trace {
    fn log_in(&self, id: ConnectionId, uid: &str) {
        self.identified(id, &uid.into());
        self.record(id, || TraceEvent::Login);
    }

    fn end(&self, id: ConnectionId) {
        self.record(id, closed);
        self.forget(id);
    }
}

/// Watches a uid.
fn watch(trace: &'static Trace, uid: &'static str) -> Watch {
    trace.watch(Watched::Uid(uid.into()))
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
    trace.identified(ConnectionId(1), &"anna".into());
    trace.missed(&"anna".into(), unwanted);
    trace.forget(ConnectionId(1));
}

#[test]
fn a_uid_is_followed_from_its_handshake_to_its_end_and_others_are_not() {
    let trace = trace();
    let mut anna = watch(trace, "anna");
    for (id, uid) in [(1, "anna"), (2, "bob")] {
        let id = ConnectionId(id);
        trace.opened(id, HERE, handshake);
        trace.record(id, || TraceEvent::Packet(Payload::of_bytes(b"x")));
        trace.log_in(id, uid);
    }
    trace.record(ConnectionId(2), unwanted);
    trace.record(ConnectionId(3), unwanted);
    trace.missed(&"bob".into(), unwanted);
    trace.end(ConnectionId(1));
    trace.record(ConnectionId(1), unwanted);
    trace.missed(&"anna".into(), || TraceEvent::Missed(Payload::of_bytes(b"x")));
    assert_eq!(names(&mut anna), ["handshake", "packet", "login", "closed", "missed"]);
}

#[test]
fn a_line_says_when_who_and_what() {
    let trace = trace();
    let mut anna = watch(trace, "anna");
    trace.log_in(ConnectionId(u64::MAX), "anna");
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
    let mut here = trace.watch(Watched::Address(HERE));
    let mut eighth = trace.watch(Watched::Connection(ConnectionId(8)));
    trace.record(ConnectionId(7), closed);
    trace.record(ConnectionId(8), closed);
    trace.opened(ConnectionId(9), HERE, handshake);
    trace.end(ConnectionId(9));
    assert_eq!(names(&mut anna), ["closed"]);
    assert_eq!(names(&mut here), ["handshake", "closed"]);
    assert_eq!(names(&mut eighth), ["closed"]);
}

#[test]
fn connections_with_the_same_low_bits_are_kept_apart() {
    let trace = trace();
    let (one, other) = (ConnectionId(1), ConnectionId(1 + BITS as u64));
    let mut first = trace.watch(Watched::Connection(one));
    let mut second = trace.watch(Watched::Connection(other));
    trace.end(one);
    assert!(trace.follows(other), "the other is still followed");
    trace.record(other, closed);
    assert_eq!((names(&mut first).len(), names(&mut second).len()), (1, 1));
}

#[test]
fn a_watch_that_ends_leaves_nothing() {
    let trace = trace();
    let anna = watch(trace, "anna");
    let connection = trace.watch(Watched::Connection(ConnectionId(1)));
    trace.opened(ConnectionId(2), HERE, handshake);
    drop(anna);
    assert!(!trace.follows(ConnectionId(2)) && trace.follows(ConnectionId(1)));
    drop(connection);
    assert!(!trace.is_watched() && !trace.follows(ConnectionId(1)));
    assert!(trace.state.lock().connections.is_empty());
}

/// A crowd that connects must not push out the client that is wanted.
#[test]
fn everything_is_bounded() {
    let trace = trace();
    let (mut anna, mut here) = (watch(trace, "anna"), trace.watch(Watched::Connection(ConnectionId(0))));
    let elsewhere = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
    for id in 1..MAX_HELD as u64 + 10 {
        trace.opened(ConnectionId(id), elsewhere, handshake);
    }
    let counts = |state: &State| (state.held, state.connections.len());
    assert_eq!(counts(&trace.state.lock()), (MAX_HELD, MAX_HELD + 1));
    for _ in 0..MAX_HELD_EVENTS {
        trace.record(ConnectionId(1), handshake);
    }
    trace.log_in(ConnectionId(1), "anna");
    assert_eq!(names(&mut anna).iter().filter(|name| *name == "handshake").count(), MAX_HELD_EVENTS);
    trace.log_in(ConnectionId(MAX_HELD as u64 + 9), "anna");
    assert_eq!(names(&mut anna), ["login"], "one whose events are not held is followed from its login on");
    trace.record(ConnectionId(0), closed);
    assert_eq!(names(&mut here), ["closed"]);
    drop((anna, here));
    let state = trace.state.lock();
    assert_eq!((state.held, state.held_bytes, state.connections.len(), state.sharing.len()), (0, 0, 0, 0));
    assert!(trace.filter.iter().all(|word| word.load(Relaxed) == 0));
}

#[test]
fn a_watch_that_ends_changes_nothing_for_others() {
    let trace = trace();
    let (anna, mut one) = (watch(trace, "anna"), trace.watch(Watched::Connection(ConnectionId(1))));
    let bob = watch(trace, "bob");
    trace.opened(ConnectionId(2), HERE, handshake);
    drop(anna);
    assert!(trace.follows(ConnectionId(2)), "bob may be there");
    drop(bob);
    assert!(!trace.follows(ConnectionId(2)));
    trace.end(ConnectionId(1));
    assert_eq!(names(&mut one), ["closed"]);
    assert_eq!(trace.state.lock().held, 0);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_is_too_slow_is_told_how_much_it_lost() {
    let trace = trace();
    let mut all = trace.watch(Watched::Connection(ConnectionId(1)));
    let (mut seen, mut lost) = (0, 0);
    // More than pass in a second; then more than wait for a reader; then one that tells what the others lost.
    for (count, reads) in [(EVENTS_PER_SECOND + 500, false), (EVENTS_PER_SECOND, true), (1, true)] {
        (0..count).for_each(|_| trace.record(ConnectionId(1), closed));
        while let Some(line) = reads.then(|| all.lines.try_recv().ok()).flatten() {
            let line: Value = serde_json::from_str(&line).unwrap();
            seen += u32::from(line["what"] == "closed");
            lost += line["lines"].as_u64().unwrap_or(0);
        }
        tokio::time::advance(std::time::Duration::from_secs(2)).await;
    }
    assert_eq!((seen, lost), (WAITING as u32, u64::from(2 * EVENTS_PER_SECOND + 501) - WAITING as u64));
}
