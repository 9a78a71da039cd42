//! Fuzz target: makes results of plugin calls from any bytes, and reads them.

use super::read::Reader;
use crate::base::message::{CloseReason, Message};
use crate::config::PluginLimits;
use crate::hub::command::{Action, Command, Recipient, Ruling};
use crate::plugin::{publications, router, types};

/// Returns limits that are small enough for a fuzzer to reach.
fn limits() -> PluginLimits {
    PluginLimits { max_actions: 8, max_output: 200, max_state: 20, max_name: 10, ..PluginLimits::default() }
}

/// Reads bytes as actions, with a packet and without, then as an answer with commands, then as a ruling.
pub(crate) fn returned(bytes: &[u8]) {
    let limits = limits();
    let packet = Message::Text("the packet".into());
    for input in [Some(&packet), None] {
        let actions = Made(bytes).actions();
        let count = actions.len();
        let Ok(read) = Reader::new(&limits, input).actions(actions) else { continue };
        assert_eq!(read.len(), count);
        assert!(count <= limits.max_actions);
        let returned: usize = read.iter().map(|action| within(action, input, &limits)).sum();
        assert!(returned <= limits.max_output, "{returned} bytes");
    }
    let commands = Made(bytes).commands();
    let reply = bytes.len().is_multiple_of(2).then(|| String::from_utf8_lossy(bytes).into_owned());
    if let Ok(answer) = Reader::new(&limits, Some(&packet)).answer(router::Answer { commands, reply }) {
        assert!(answer.reply.is_none_or(|reply| !reply.contains(['\n', '\r'])));
        answer.commands.iter().for_each(|command| _ = within_command(command, Some(&packet), &limits));
    }
    match Reader::new(&limits, Some(&packet)).ruling(Made(bytes).ruling()) {
        Ok(Ruling::Instead(commands)) => {
            let returned: usize = commands.iter().map(|command| within_command(command, Some(&packet), &limits)).sum();
            assert!(returned <= limits.max_output, "{returned} bytes");
        }
        Ok(Ruling::Refuse(text)) => assert!(!text.contains(char::is_control) && text.len() <= 1024 + '…'.len_utf8()),
        Ok(Ruling::Pass) | Err(_) => {}
    }
}

/// Asserts that an action is within the limits. Returns its bytes that are not the packet's.
fn within(action: &Action, input: Option<&Message>, limits: &PluginLimits) -> usize {
    match action {
        Action::Command(command) => within_command(command, input, limits),
        Action::Reply(message) => own(message, input),
        Action::Remember(state) => {
            assert!(state.len() <= limits.max_state);
            state.len()
        }
        Action::Authenticate => {
            assert!(input.is_some(), "there is a packet to authenticate");
            0
        }
    }
}

fn within_command(command: &Command, input: Option<&Message>, limits: &PluginLimits) -> usize {
    let group = |group: &str| {
        assert!((1..=limits.max_name).contains(&group.len()), "{group:?}");
        group.len()
    };
    let who = |who: &Recipient| match who {
        Recipient::Uid(uid) => uid.len(),
        Recipient::Group(name) | Recipient::GroupOthers(name) => group(name),
        Recipient::Connection(_) | Recipient::Everyone => 0,
    };
    match command {
        Command::Deliver(delivery) => {
            let otherwise = delivery.otherwise.as_ref().map_or(0, |message| own(message, input));
            who(&delivery.to) + own(&delivery.message, input) + otherwise
        }
        Command::Join(membership) | Command::Leave(membership) => who(&membership.who) + group(&membership.group),
        Command::Close(closing) => {
            let CloseReason { code, reason } = &closing.reason;
            assert!(matches!(code, 1000 | 1008 | 1013 | 3000..=4899) && reason.len() <= 123, "{:?}", closing.reason);
            who(&closing.who) + reason.len()
        }
    }
}

/// Returns the length of a message, or 0 if the message is the packet.
fn own(message: &Message, input: Option<&Message>) -> usize {
    let shared = input.is_some_and(|input| std::ptr::eq(input.as_bytes(), message.as_bytes()));
    if shared { 0 } else { message.len() }
}

/// Makes values that a plugin could return from bytes.
struct Made<'a>(&'a [u8]);

impl Made<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes.to_vec()
    }

    /// Makes valid UTF-8: the engine hands over nothing else.
    fn text(&mut self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    fn payload(&mut self) -> types::Payload {
        match self.byte() % 3 {
            0 => types::Payload::Input,
            1 => types::Payload::Text(self.text()),
            _ => types::Payload::Binary(self.bytes()),
        }
    }

    fn recipient(&mut self) -> router::RecipientResult {
        match self.byte() % 5 {
            0 => router::RecipientResult::Uid(self.text()),
            1 => router::RecipientResult::Connection(self.byte().into()),
            2 => router::RecipientResult::Group(self.text()),
            3 => router::RecipientResult::GroupOthers(self.text()),
            _ => router::RecipientResult::Everyone,
        }
    }

    fn delivery(&mut self) -> router::Delivery {
        let (to, message) = (self.recipient(), self.payload());
        let otherwise = (self.byte() % 2 == 1).then(|| self.payload());
        router::Delivery { to, message, otherwise }
    }

    fn membership(&mut self) -> router::Membership {
        router::Membership { who: self.recipient(), group: self.text() }
    }

    fn closing(&mut self) -> router::Closing {
        let who = self.recipient();
        let code = u16::from_be_bytes([self.byte(), self.byte()]);
        router::Closing { who, reason: types::CloseReason { code, reason: self.text() } }
    }

    fn commands(mut self) -> Vec<router::Command> {
        let mut commands = Vec::new();
        while !self.0.is_empty() {
            commands.push(match self.byte() % 4 {
                0 => router::Command::Deliver(self.delivery()),
                1 => router::Command::Join(self.membership()),
                2 => router::Command::Leave(self.membership()),
                _ => router::Command::Close(self.closing()),
            });
        }
        commands
    }

    fn ruling(mut self) -> publications::Ruling {
        match self.byte() % 3 {
            0 => publications::Ruling::Pass,
            1 => publications::Ruling::Refuse(self.text()),
            _ => publications::Ruling::Instead(self.commands()),
        }
    }

    fn actions(mut self) -> Vec<router::Action> {
        let mut actions = Vec::new();
        while !self.0.is_empty() {
            actions.push(match self.byte() % 7 {
                0 => router::Action::Deliver(self.delivery()),
                1 => router::Action::Join(self.membership()),
                2 => router::Action::Leave(self.membership()),
                3 => router::Action::Close(self.closing()),
                4 => router::Action::Reply(self.payload()),
                5 => router::Action::Remember(self.bytes()),
                _ => router::Action::Authenticate,
            });
        }
        actions
    }
}
