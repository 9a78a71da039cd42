//! The checker finds what is wrong: each rule with one history that breaks it, and one that does not.

use std::time::Duration;

use super::record::{Connection, Events, Kind, Outcome, Push, Time, To, Trouble};

const fn at(seconds: u64) -> Time {
    Duration::from_secs(seconds)
}

/// The uid 7 is connected to gateway 0 from second 20 on, and in the group. Gateway 1 pushes at second 60.
struct History(Events);

impl History {
    fn new(to: To, outcome: Outcome) -> Self {
        let mut history = Self(Events::default());
        let confirmed = Some(at(20));
        let connection = Connection { uid: 7, asked: at(19), confirmed, ..Connection::default() };
        history.0.connections.insert(1, Connection { joining: confirmed, joined: Some(at(21)), ..connection });
        history.push(100, to, outcome)
    }

    fn push(mut self, number: u64, to: To, outcome: Outcome) -> Self {
        self.0.pushes.insert(number, Push { stream: 5, gateway: 1, to, begin: at(60), end: at(61), outcome });
        self
    }

    /// Another connection of the uid, on gateway 2, which was opened after the first.
    fn another(mut self, uid: usize) -> Self {
        let connection =
            Connection { uid, gateway: 2, asked: at(30), confirmed: Some(at(31)), ..Connection::default() };
        self.0.connections.insert(2, connection);
        self
    }

    fn read(mut self, connection: u64, number: u64, time: Time) -> Self {
        self.0.connections.get_mut(&connection).expect("a connection").received.push((number, time));
        self
    }

    fn ends(mut self, time: Time) -> Self {
        self.0.connections.get_mut(&1).expect("a connection").ended = Some(time);
        self
    }

    fn trouble(mut self, gateway: usize, kind: Kind) -> Self {
        self.0.troubles.push(Trouble { gateway, kind, begin: at(58), end: Some(at(62)) });
        self
    }

    #[track_caller]
    fn expect_right(self) {
        assert_eq!(self.0.check().wrong, [""; 0]);
    }

    #[track_caller]
    fn expect_wrong(self, words: &str) {
        let wrong = self.0.check().wrong;
        assert!(wrong.len() == 1 && wrong[0].contains(words), "{words}: {wrong:?}");
    }
}

fn reached(count: usize) -> Outcome {
    Outcome::Reached(count, Vec::new())
}

fn one() -> Outcome {
    reached(1)
}

fn failed(reason: &str) -> Outcome {
    Outcome::Failed(reason.to_owned())
}

const UID: To = To::Uid(7);

#[test]
fn what_was_reached_is_read_once_unless_the_connection_ended() {
    History::new(UID, one()).read(1, 100, at(61)).expect_right();
    History::new(UID, one()).expect_wrong("was not read");
    History::new(UID, one()).ends(at(61)).expect_right();
    // Long before, or long after.
    History::new(UID, one()).ends(at(50)).expect_wrong("was not read");
    History::new(UID, one()).ends(at(70)).expect_wrong("was not read");
    History::new(UID, one()).ends(at(70)).trouble(0, Kind::Stopped).expect_right();
    History::new(UID, one())
        .another(7)
        .read(1, 100, at(61))
        .read(2, 100, at(61))
        .trouble(2, Kind::Link)
        .expect_wrong("several");
    History::new(UID, reached(2)).read(1, 100, at(61)).expect_wrong("reached 2");
}

#[test]
fn what_failed_is_not_read_and_what_is_unknown_at_most_once() {
    History::new(UID, failed("unreachable")).expect_right();
    History::new(UID, failed("unreachable")).read(1, 100, at(61)).expect_wrong("failed (unreachable)");
    History::new(UID, Outcome::Unknown).expect_right();
    History::new(UID, Outcome::Unknown).read(1, 100, at(61)).expect_right();
    History::new(UID, Outcome::Unknown)
        .read(1, 100, at(61))
        .read(1, 100, at(61))
        .0
        .check()
        .wrong
        .first()
        .expect("twice");
}

#[test]
fn a_stranger_reads_nothing() {
    History::new(UID, one()).another(8).read(2, 100, at(61)).expect_wrong("stranger");
    History::new(To::Group, one()).another(8).read(1, 100, at(61)).expect_right();
    History::new(To::Group, one()).another(8).read(1, 100, at(61)).read(2, 100, at(61)).expect_wrong("stranger");
    History::new(UID, one()).read(1, 100, at(61)).read(1, 101, at(61)).expect_wrong("101 was not pushed");
}

#[test]
fn messages_of_one_stream_are_read_in_their_order() {
    let both = || History::new(UID, one()).push(101, UID, one());
    both().read(1, 100, at(61)).read(1, 101, at(61)).expect_right();
    both().read(1, 101, at(61)).read(1, 100, at(61)).expect_wrong("in the wrong order");
    let mut other = both().read(1, 101, at(61)).read(1, 100, at(61));
    other.0.pushes.get_mut(&101).expect("a push").stream = 6;
    other.expect_right();
}

#[test]
fn nothing_is_read_late_unless_a_process_stood_still() {
    for (gateway, kind, expect_right) in
        [(0, Kind::Stopped, true), (1, Kind::Stopped, true), (0, Kind::Link, false), (2, Kind::Stopped, false)]
    {
        let late = History::new(UID, one()).read(1, 100, at(64)).trouble(gateway, kind);
        if expect_right { late.expect_right() } else { late.expect_wrong("late") }
    }
    let mut waiting = History::new(UID, one()).read(1, 100, at(66));
    waiting.0.connections.get_mut(&1).expect("a connection").confirmed = Some(at(65));
    waiting.expect_right();
}

#[test]
fn whoever_has_read_its_reply_is_not_offline() {
    History::new(UID, failed("offline")).expect_wrong("offline, with");
    History::new(UID, failed("offline")).ends(at(60)).expect_right();
    History::new(UID, failed("offline")).trouble(0, Kind::Link).expect_right();
    // That it is slow, or that the asked gateway is in trouble, is no excuse.
    History::new(UID, failed("offline")).trouble(0, Kind::Slow).expect_wrong("offline, with");
    History::new(UID, failed("offline")).trouble(1, Kind::Link).expect_wrong("offline, with");
    History::new(To::Uid(8), failed("offline")).expect_right();
}

#[test]
fn the_newest_connection_reads() {
    History::new(UID, one()).another(7).read(2, 100, at(61)).expect_right();
    History::new(UID, one()).another(7).read(1, 100, at(61)).expect_wrong("not the newest");
    for gateway in [1, 2] {
        History::new(UID, one()).another(7).read(1, 100, at(61)).trouble(gateway, Kind::Link).expect_right();
    }
    History::new(UID, one()).another(7).read(1, 100, at(61)).trouble(0, Kind::Link).expect_wrong("not the newest");
}

#[test]
fn members_of_a_group_read_and_are_counted() {
    for to in [To::Group, To::Everyone] {
        History::new(to, one()).read(1, 100, at(61)).expect_right();
        History::new(to, reached(2)).read(1, 100, at(61)).expect_wrong("reached 2, read by 1");
        History::new(to, reached(0)).expect_wrong("not read by");
        History::new(to, Outcome::Reached(0, vec![0])).expect_right();
        History::new(to, Outcome::Reached(0, vec![1, 2])).expect_wrong("not read by");
        History::new(to, reached(0)).trouble(0, Kind::Link).expect_right();
        History::new(to, reached(0)).trouble(0, Kind::Slow).expect_right();
        History::new(to, reached(0)).trouble(1, Kind::Link).expect_right();
        History::new(to, reached(0)).trouble(2, Kind::Link).expect_wrong("not read by");
    }
}

#[test]
fn a_text_that_nobody_pushed_is_wrong() {
    let mut history = History::new(UID, one()).read(1, 100, at(61));
    history.0.odd.push("x".to_owned());
    history.expect_wrong("stray");
}
