//! Converts the results of plugin calls into plain types. A result that breaks the contract or a limit fails the call.

use bytes::Bytes;
use bytestring::ByteString;

use crate::base::message::{CloseReason, ConnectionId, Message};
use crate::config::PluginLimits;
use crate::hub::command::{Action, Answer, Closing, Command, Delivery, Membership, Recipient, Ruling};
use crate::hub::registry::{Registry, Several};
use crate::plugin::text::clean;
use crate::plugin::{CallError, publications, router, types};

/// The most bytes of a refusal that a publisher is shown: enough for a few sentences.
const MAX_REFUSAL: usize = 1024;

/// Converts the result of one call, and counts its bytes and recipients.
pub(super) struct Reader<'a> {
    /// The packet or line of the call, which `payload.input` stands for.
    input: Option<&'a Message>,
    limits: &'a PluginLimits,
    /// Used to count recipients. `None` for authenticators, which return no recipients.
    registry: Option<&'a Registry>,
    bytes: usize,
    recipients: usize,
}

type Result<T> = std::result::Result<T, CallError>;

fn wrong<T>(problem: impl Into<String>) -> Result<T> {
    Err(CallError::Result(problem.into()))
}

impl<'a> Reader<'a> {
    pub(super) fn new(limits: &'a PluginLimits, input: Option<&'a Message>) -> Self {
        Self { input, limits, registry: None, bytes: 0, recipients: 0 }
    }

    /// Makes the reader count recipients as well.
    pub(super) fn counting(self, registry: &'a Registry) -> Self {
        Self { registry: Some(registry), ..self }
    }

    /// Counts bytes of the result. Fails past `limits.max_output`.
    fn count(&mut self, bytes: usize) -> Result<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        let limit = self.limits.max_output;
        if self.bytes > limit { wrong(format!("more than {limit} bytes (limits.max_output)")) } else { Ok(()) }
    }

    pub(super) fn text(&mut self, text: String) -> Result<ByteString> {
        self.count(text.len())?;
        Ok(text.into())
    }

    pub(super) fn string(&mut self, text: String) -> Result<String> {
        self.count(text.len())?;
        Ok(text)
    }

    pub(super) fn payload(&mut self, payload: types::Payload) -> Result<Message> {
        match payload {
            // Not counted in `max_output`: the bytes are not copied.
            types::Payload::Input => match self.input {
                Some(input) => Ok(input.clone()),
                None => wrong("payload `input` from a call that has no packet (greet, opened or closed)"),
            },
            types::Payload::Text(text) => Ok(Message::Text(self.text(text)?)),
            types::Payload::Binary(bytes) => {
                self.count(bytes.len())?;
                Ok(Message::Binary(bytes.into()))
            }
        }
    }

    pub(super) fn optional(&mut self, payload: Option<types::Payload>) -> Result<Option<Message>> {
        payload.map(|payload| self.payload(payload)).transpose()
    }

    pub(super) fn state(&mut self, state: Vec<u8>) -> Result<Bytes> {
        let limit = self.limits.max_state;
        if state.len() > limit {
            return wrong(format!("a state of {} bytes, the limit is {limit} (limits.max_state)", state.len()));
        }
        self.count(state.len())?;
        Ok(state.into())
    }

    pub(super) fn reason(&mut self, reason: types::CloseReason) -> Result<CloseReason> {
        let types::CloseReason { code, reason } = reason;
        if !matches!(code, 1000 | 1008 | 1013 | 3000..=4899) {
            return wrong(format!("close code {code}; plugins may use 3000 to 4899, 1000, 1008 and 1013"));
        }
        if reason.len() > CloseReason::LONGEST {
            return wrong(format!("a close reason of {} bytes, the limit is {}", reason.len(), CloseReason::LONGEST));
        }
        Ok(CloseReason { code, reason: self.text(reason)? })
    }

    fn group(&mut self, group: String) -> Result<ByteString> {
        let limit = self.limits.max_name;
        if group.is_empty() || group.len() > limit {
            let bytes = group.len();
            return wrong(format!("a group name of {bytes} bytes, allowed are 1 to {limit} (limits.max_name)"));
        }
        self.text(group)
    }

    fn recipient(&mut self, recipient: router::RecipientResult) -> Result<Recipient> {
        let recipient = match recipient {
            router::RecipientResult::Uid(uid) => Recipient::Uid(self.text(uid)?),
            router::RecipientResult::Connection(id) => Recipient::Connection(ConnectionId(id)),
            router::RecipientResult::Group(group) => Recipient::Group(self.group(group)?),
            router::RecipientResult::GroupOthers(group) => Recipient::GroupOthers(self.group(group)?),
            router::RecipientResult::Everyone => Recipient::Everyone,
        };
        let count = match (&recipient, self.registry) {
            (Recipient::Uid(uid), Some(registry)) if !registry.reaches_one_of_a_uid() => {
                registry.count(Several::Uid(uid))
            }
            (Recipient::Group(group) | Recipient::GroupOthers(group), Some(registry)) => {
                registry.count(Several::Group(group))
            }
            (Recipient::Everyone, Some(registry)) => registry.count(Several::Everyone),
            _ => 1,
        };
        // A recipient without connections counts as one, to limit look-ups.
        self.recipients = self.recipients.saturating_add(count.max(1));
        let limit = self.limits.max_recipients;
        if self.recipients > limit {
            let least = self.recipients;
            return wrong(format!(
                "actions for at least {least} connections, the limit is {limit} (limits.max_recipients)"
            ));
        }
        Ok(recipient)
    }

    fn delivery(&mut self, delivery: router::Delivery) -> Result<Command> {
        Ok(Command::Deliver(Delivery {
            to: self.recipient(delivery.to)?,
            message: self.payload(delivery.message)?,
            otherwise: self.optional(delivery.otherwise)?,
        }))
    }

    fn membership(&mut self, membership: router::Membership) -> Result<Membership> {
        Ok(Membership { who: self.recipient(membership.who)?, group: self.group(membership.group)? })
    }

    fn closing(&mut self, closing: router::Closing) -> Result<Command> {
        Ok(Command::Close(Closing { who: self.recipient(closing.who)?, reason: self.reason(closing.reason)? }))
    }

    fn command(&mut self, command: router::Command) -> Result<Command> {
        match command {
            router::Command::Deliver(delivery) => self.delivery(delivery),
            router::Command::Join(membership) => Ok(Command::Join(self.membership(membership)?)),
            router::Command::Leave(membership) => Ok(Command::Leave(self.membership(membership)?)),
            router::Command::Close(closing) => self.closing(closing),
        }
    }

    fn action(&mut self, action: router::Action) -> Result<Action> {
        Ok(match action {
            router::Action::Deliver(delivery) => Action::Command(self.delivery(delivery)?),
            router::Action::Join(membership) => Action::Command(Command::Join(self.membership(membership)?)),
            router::Action::Leave(membership) => Action::Command(Command::Leave(self.membership(membership)?)),
            router::Action::Close(closing) => Action::Command(self.closing(closing)?),
            router::Action::Reply(payload) => Action::Reply(self.payload(payload)?),
            router::Action::Remember(state) => Action::Remember(self.state(state)?),
            router::Action::Authenticate if self.input.is_some() => Action::Authenticate,
            router::Action::Authenticate => return wrong("action `authenticate` from `opened`, which has no packet"),
        })
    }

    /// Fails if an identity has too many attributes, or too many bytes of them. The session keeps them until it ends,
    /// and the router gets them with each packet.
    pub(super) fn count_attributes(&self, count: usize, bytes: usize) -> Result<()> {
        let PluginLimits { max_attributes, max_attribute_bytes, .. } = self.limits;
        if count > *max_attributes {
            return wrong(format!("{count} attributes, the limit is {max_attributes} (limits.max_attributes)"));
        }
        if bytes > *max_attribute_bytes {
            let limit = format!("the limit is {max_attribute_bytes} (limits.max_attribute_bytes)");
            return wrong(format!("attributes of {bytes} bytes, {limit}"));
        }
        Ok(())
    }

    fn count_actions(&self, count: usize) -> Result<()> {
        let limit = self.limits.max_actions;
        if count > limit {
            wrong(format!("{count} actions, the limit is {limit} (limits.max_actions)"))
        } else {
            Ok(())
        }
    }

    pub(super) fn actions(mut self, actions: Vec<router::Action>) -> Result<Vec<Action>> {
        self.count_actions(actions.len())?;
        actions.into_iter().map(|action| self.action(action)).collect()
    }

    pub(super) fn commands(&mut self, commands: Vec<router::Command>) -> Result<Vec<Command>> {
        self.count_actions(commands.len())?;
        commands.into_iter().map(|command| self.command(command)).collect()
    }

    pub(super) fn answer(mut self, answer: router::Answer) -> Result<Answer> {
        let commands = self.commands(answer.commands)?;
        let reply = answer.reply.map(|reply| self.text(reply)).transpose()?;
        if reply.as_ref().is_some_and(|reply| reply.contains(['\n', '\r'])) {
            return wrong("a reply with a line end in it: a reply is one line");
        }
        Ok(Answer { commands, reply })
    }

    pub(super) fn ruling(mut self, ruling: publications::Ruling) -> Result<Ruling> {
        Ok(match ruling {
            publications::Ruling::Pass => Ruling::Pass,
            publications::Ruling::Instead(commands) => Ruling::Instead(self.commands(commands)?),
            publications::Ruling::Refuse(text) => Ruling::Refuse(clean(text.as_bytes(), MAX_REFUSAL)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::DuplicateLogin;
    use crate::hub::outbox::{Budget, Outbox};

    fn limits() -> PluginLimits {
        PluginLimits { max_output: 10, max_actions: 2, ..crate::plugin::tests::limits() }
    }

    fn reply(text: &str) -> router::Action {
        router::Action::Reply(types::Payload::Text(text.to_owned()))
    }

    fn fails<T>(result: Result<T>, with: &str) {
        let error = result.err().expect("is refused").to_string();
        assert!(error.contains(with), "{error}");
    }

    #[test]
    fn input_is_the_packet_itself() {
        let (limits, packet) = (limits(), Message::Text("0123456789abcdef".into()));
        let actions = vec![router::Action::Reply(types::Payload::Input)];
        let actions = Reader::new(&limits, Some(&packet)).actions(actions).unwrap();
        let [Action::Reply(message)] = &actions[..] else { panic!("{actions:?}") };
        assert_eq!(message.as_bytes().as_ptr(), packet.as_bytes().as_ptr());
        fails(Reader::new(&limits, None).payload(types::Payload::Input), "no packet");
        let authenticate = |input| Reader::new(&limits, input).actions(vec![router::Action::Authenticate]);
        assert_eq!(authenticate(Some(&packet)).unwrap(), [Action::Authenticate]);
        fails(authenticate(None), "no packet");
    }

    #[test]
    fn actions_and_bytes_are_counted_over_the_whole_result() {
        let limits = limits();
        let read = |actions| Reader::new(&limits, None).actions(actions);
        assert_eq!(read(vec![reply("01234"), reply("56789")]).unwrap().len(), 2);
        fails(read(vec![reply("01234"), reply("56789a")]), "more than 10 bytes (limits.max_output)");
        fails(read(vec![reply(""), reply(""), reply("")]), "3 actions, the limit is 2 (limits.max_actions)");
    }

    #[test]
    fn close_reasons_are_those_of_the_contract() {
        let limits = crate::plugin::tests::limits();
        let read =
            |code, length| Reader::new(&limits, None).reason(types::CloseReason { code, reason: "x".repeat(length) });
        for code in [1000, 1008, 1013, 3000, 4400, 4899] {
            assert_eq!(read(code, 123).unwrap().code, code);
        }
        for code in [0, 999, 1001, 1005, 1006, 2999, 4900, 4902, 5000] {
            fails(read(code, 0), "close code");
        }
        fails(read(4400, 124), "a close reason of 124 bytes");
    }

    #[test]
    fn names_and_states_are_bounded() {
        let limits = crate::plugin::tests::limits();
        let mut reader = Reader::new(&limits, None);
        assert!(reader.group("x".repeat(256)).is_ok());
        fails(reader.group(String::new()), "0 bytes");
        fails(reader.group("x".repeat(257)), "257 bytes");
        assert!(reader.state(vec![0; 4096]).is_ok());
        fails(reader.state(vec![0; 4097]), "a state of 4097 bytes");
        // Too long for a uid, but the call does not fail: the recipient reaches nobody.
        assert!(reader.recipient(router::RecipientResult::Uid("x".repeat(300))).is_ok());
    }

    #[test]
    fn a_reply_is_one_line() {
        let limits = crate::plugin::tests::limits();
        let answer = |reply: &str| router::Answer { commands: vec![], reply: Some(reply.to_owned()) };
        assert_eq!(Reader::new(&limits, None).answer(answer("sent")).unwrap().reply.unwrap(), "sent");
        fails(Reader::new(&limits, None).answer(answer("ok\nok")), "line end");
    }

    #[test]
    fn a_refusal_is_a_short_line_and_commands_are_bounded() {
        let (limits, message) = (limits(), Message::Text("0123456789abcdef".into()));
        let read = |ruling| Reader::new(&limits, Some(&message)).ruling(ruling);
        let refused = |text: &str| read(publications::Ruling::Refuse(text.to_owned()));
        assert_eq!(refused("no\nsuch \x1b[1mroom").unwrap(), Ruling::Refuse("no such  [1mroom".to_owned()));
        assert_eq!(refused(&"x".repeat(2000)).unwrap(), Ruling::Refuse("x".repeat(1024) + "…"));
        let input = || {
            let (to, message) = (router::RecipientResult::Everyone, types::Payload::Input);
            router::Command::Deliver(router::Delivery { to, message, otherwise: None })
        };
        let Ruling::Instead(commands) = read(publications::Ruling::Instead(vec![input()])).unwrap() else { panic!() };
        let [Command::Deliver(delivery)] = &commands[..] else { panic!("{commands:?}") };
        assert_eq!(delivery.message.as_bytes().as_ptr(), message.as_bytes().as_ptr());
        fails(read(publications::Ruling::Instead(vec![input(), input(), input()])), "limits.max_actions");
    }

    #[test]
    fn strings_and_optional_payloads_are_counted_too() {
        let limits = limits();
        let mut reader = Reader::new(&limits, None);
        assert_eq!(reader.string("01234".to_owned()).unwrap(), "01234");
        let text = |text: &str| Some(types::Payload::Text(text.to_owned()));
        assert_eq!(reader.optional(text("56789")).unwrap(), Some(Message::Text("56789".into())));
        assert_eq!(reader.optional(None).unwrap(), None);
        fails(reader.string("a".to_owned()), "limits.max_output");
    }

    #[test]
    fn each_connection_that_is_reached_counts_as_a_recipient() {
        use router::RecipientResult as It;
        type To = fn() -> It;
        let recipients: [(To, usize, usize); 6] = [
            (|| It::Uid("anna".to_owned()), 1, 3),
            (|| It::Connection(1), 1, 1),
            (|| It::Group("room".to_owned()), 3, 3),
            (|| It::GroupOthers("room".to_owned()), 3, 3),
            (|| It::Group("empty".to_owned()), 1, 1),
            (|| It::Everyone, 3, 3),
        ];
        let [newest, all] = [DuplicateLogin::Newest, DuplicateLogin::All].map(|duplicate_login| {
            let registry = Registry::new(duplicate_login);
            for _ in 0..3 {
                let outbox = Arc::new(Outbox::new(1000, Arc::new(Budget::new(1000, 1))));
                let address = ([192, 0, 2, 1], 4711).into();
                registry.register(ConnectionId::next(), "anna".into(), outbox, address).unwrap();
                registry.join(&registry.newest("anna").unwrap(), &"room".into()).unwrap();
            }
            registry
        });
        let read = |to: To, max_recipients, registry| {
            let limits = PluginLimits { max_recipients, ..limits() };
            Reader::new(&limits, None).counting(registry).recipient(to())
        };
        for (to, of_newest, of_all) in recipients {
            for (registry, count) in [(&newest, of_newest), (&all, of_all)] {
                assert!(read(to, count, registry).is_ok());
                fails(read(to, count - 1, registry), &format!("at least {count} connections"));
            }
        }
    }

    #[test]
    fn attributes_are_bounded_in_number_and_bytes() {
        let limits = PluginLimits { max_attributes: 2, max_attribute_bytes: 10, ..limits() };
        let reader = Reader::new(&limits, None);
        assert!(reader.count_attributes(2, 10).is_ok());
        fails(reader.count_attributes(3, 10), "limits.max_attributes");
        fails(reader.count_attributes(2, 11), "limits.max_attribute_bytes");
    }
}
