//! Both sides of a link, by example.

use std::time::Duration;

use bytes::Bytes;

use super::super::clock::{PeerClock, Stamp};
use super::super::frame::{Answers, Body, Reply, SEGMENT, Target};
use super::super::id::Ticket;
use super::incoming::Incoming;
use super::outgoing::{Answer, Found, Outgoing, Window};

const TIMEOUT: Duration = Duration::from_secs(1);

struct Link {
    out: Outgoing,
    into: Incoming,
    window: Window,
    found: Found,
    now: Duration,
    taken: Vec<(u64, usize)>,
}

impl Link {
    fn new() -> Self {
        let window = Window::new(200_000);
        let now = Duration::from_secs(100);
        Self { out: Outgoing::default(), into: Incoming::default(), window, found: Vec::new(), now, taken: Vec::new() }
    }

    fn issue(&mut self, ticket: u64, length: usize) -> bool {
        let target = Target::Uid(Stamp(1));
        self.out.issue(self.now, Ticket(ticket), target, Bytes::from(vec![7; length]), &mut self.window)
    }

    fn frame(&mut self) -> Option<(u64, Body)> {
        let clock = PeerClock { theirs: self.now, arrived: self.now };
        self.out.frame(self.now, clock, TIMEOUT, &mut self.window, &mut self.found)
    }

    fn receive(&mut self, frame: Option<(u64, Body)>) {
        match frame.expect("a frame").1 {
            Body::Commands { first, commands } => {
                let taken = &mut self.taken;
                self.into.commands(self.now, first, commands, |it| taken.push((it.number, it.command.body.len())));
            }
            Body::Segment(segment) => {
                assert!(segment.bytes.len() <= SEGMENT);
                let arrived = self.into.segment(self.now, segment);
                self.taken.extend(arrived.map(|it| (it.number, it.command.body.len())));
            }
            body => panic!("{body:?}"),
        }
    }

    fn answer_all(&mut self) -> Vec<(Ticket, Answer)> {
        for &(number, _) in &self.taken {
            self.into.answer(number, Reply::Done(Bytes::new()));
        }
        while let Some(Body::Answers(Answers { replies, skipped })) = self.into.frame() {
            for (number, reply) in replies {
                self.out.reply(number, reply, &mut self.window, &mut self.found);
            }
            for (first, last) in skipped {
                self.out.skipped(first, last, &mut self.window, &mut self.found);
            }
        }
        std::mem::take(&mut self.found)
    }
}

fn done(ticket: u64) -> (Ticket, Answer) {
    (Ticket(ticket), Answer::Done(Bytes::new()))
}

#[test]
fn commands_that_wait_share_a_frame_and_long_ones_are_cut() {
    let mut link = Link::new();
    for (ticket, length) in [(1, 10), (2, 0), (3, 2 * SEGMENT + 5), (4, SEGMENT - 100), (5, 10), (6, 60)] {
        assert!(link.issue(ticket, length));
    }
    let mut frames = 0;
    while let Some(frame) = link.frame() {
        link.receive(Some(frame));
        frames += 1;
    }
    assert_eq!((frames, link.taken.len()), (6, 6));
    assert!(link.taken.is_sorted());
    assert_eq!(link.answer_all(), [1, 2, 3, 4, 5, 6].map(done));
    assert!(link.out.is_idle() && link.window.used() == 0);
}

#[test]
fn a_frame_that_was_overtaken_is_refused_for_ever() {
    let mut link = Link::new();
    link.issue(1, 1);
    let first = link.frame();
    link.issue(2, 2);
    let second = link.frame();
    link.receive(second);
    link.receive(first);
    assert_eq!(link.taken, [(2, 2)]);
    assert_eq!(link.answer_all(), [done(2), (Ticket(1), Answer::Skipped)]);
}

#[test]
fn a_command_with_a_missing_segment_is_refused_for_ever() {
    for lost in 0..3 {
        let mut link = Link::new();
        link.issue(1, 2 * SEGMENT + 5);
        link.issue(2, 1);
        for number in 0..4 {
            let frame = link.frame();
            if number != lost {
                link.receive(frame);
            }
        }
        assert_eq!(link.taken, [(2, 1)], "{lost}");
        assert_eq!(link.answer_all(), [done(2), (Ticket(1), Answer::Skipped)], "{lost}");
    }
}

#[test]
fn a_command_past_its_deadline_is_refused() {
    let mut link = Link::new();
    link.issue(1, 1);
    link.now += TIMEOUT / 2;
    link.issue(2, 1);
    let frame = link.frame();
    link.now += TIMEOUT / 2 + Duration::from_millis(1);
    link.receive(frame);
    assert_eq!(link.taken, [(2, 1)]);
    assert_eq!(link.answer_all(), [(Ticket(1), Answer::Expired), done(2)]);
    link.issue(3, 1);
    link.now += TIMEOUT;
    assert!(link.frame().is_none(), "too late before it was sent");
    assert_eq!(link.found, [(Ticket(3), Answer::Expired)]);
    assert_eq!(link.window.used(), 0);
}

#[test]
fn an_answer_that_does_not_come_is_unknown() {
    let mut link = Link::new();
    link.issue(1, 1);
    link.issue(2, 1);
    link.frame();
    link.out.reply(2, Reply::Done(Bytes::new()), &mut link.window, &mut link.found);
    link.now += TIMEOUT;
    link.out.expire(link.now, TIMEOUT, &mut link.window, &mut link.found);
    link.out.reply(1, Reply::Done(Bytes::new()), &mut link.window, &mut link.found);
    assert_eq!(link.found, [done(2), (Ticket(1), Answer::Unknown)]);
    assert!(link.out.is_idle());
}

#[test]
fn a_frame_without_a_receiver_fails_at_once() {
    let mut link = Link::new();
    link.issue(1, 1);
    link.issue(2, 1);
    let first = link.frame().unwrap().0;
    link.issue(3, 3);
    let third = link.frame();
    link.out.reply(2, Reply::Done(Bytes::new()), &mut link.window, &mut link.found);
    link.out.no_responders(first, &mut link.window, &mut link.found);
    link.out.no_responders(first, &mut link.window, &mut link.found);
    assert_eq!(link.found, [done(2), (Ticket(1), Answer::Unreachable)]);
    link.receive(third);
    assert_eq!(link.answer_all()[2..], [done(3)]);
    link.issue(4, 3 * SEGMENT);
    let first = link.frame().unwrap().0;
    link.out.no_responders(first, &mut link.window, &mut link.found);
    assert_eq!(link.found, [(Ticket(4), Answer::Unreachable)]);
    assert!(link.frame().is_none(), "the rest is not sent");
}

#[test]
fn a_full_window_refuses_but_an_empty_link_takes_one() {
    let mut link = Link::new();
    let mut other = Outgoing::default();
    assert!(link.issue(1, 300_000));
    assert!(!link.issue(2, 1));
    let target = Target::All;
    assert!(other.issue(link.now, Ticket(3), target, Bytes::from_static(b"x"), &mut link.window));
    assert!(!other.issue(link.now, Ticket(4), target, Bytes::from_static(b"x"), &mut link.window));
    link.frame();
    link.out.give_up(&mut link.window, &mut link.found);
    other.give_up(&mut link.window, &mut link.found);
    assert_eq!(link.found, [(Ticket(1), Answer::Unreachable), (Ticket(3), Answer::Unreachable)]);
    assert_eq!(link.window.used(), 0);
}
