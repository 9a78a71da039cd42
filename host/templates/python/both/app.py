"""{{name}}: who is this, and who gets this? A new client is greeted, and the `id` in its first
packet becomes its uid. After that, a packet {"id":"u2","msg":"hi"} sends `hi` to the client u2; a
line {"uid":"u1"} of an internal system goes to u1 as it came.

A plugin is asked and answers; the gateway does the rest, in the order of the answer. Each call may
meet another instance, so nothing can be kept in a global: what belongs to a client goes into its
session (`Action_Remember`). What stands at the top of this file runs when the plugin is built, not
when it serves. The interfaces are explained in wit/*.wit.
"""

import os

from componentize_py_types import Err
from packet import Unusable, fields, message, text, uid
from wit_world import exports
from wit_world.exports.authenticator import Handshake, Identity, Prompt, Verdict
from wit_world.exports.authenticator import Verdict_Accept, Verdict_Challenge, Verdict_Deny
from wit_world.exports.router import Action, Action_Deliver, Action_Reply, Answer
from wit_world.exports.router import Command, Command_Deliver
from wit_world.exports.router import Delivery, Ending, Recipient_Uid, Sender, Session
from wit_world.imports.logging import Level, log
from wit_world.imports.types import CloseReason, Message, Payload, Payload_Input, Payload_Text

# Sent once a client is authenticated.
WELCOME = "Link_successful"
# What every later packet is answered with.
RECEIVED = "Already_Linked"
# Sent to a client when another connection of the same uid has closed.
OTHER_CLOSED = "123"
# The close code for a first packet that cannot be used. 3000 to 4899 are yours to give a meaning.
BAD_REQUEST = 4400


class Lifecycle(exports.Lifecycle):
    def check(self) -> None:
        """Asked before this plugin goes live. An `Err` refuses it, and what served before goes
        on."""
        greeting()


class Authenticator(exports.Authenticator):
    def greet(self, handshake: Handshake) -> Verdict:
        """A connection has opened. `handshake` is all that is known: address, path, query, and the
        headers that `websocket.pass_headers` lists. A token in there could be accepted or denied
        here already."""
        # The state would be handed to `authenticate`; none is needed.
        return Verdict_Challenge(Prompt(message=Payload_Text(greeting()), state=b""))

    def authenticate(self, handshake: Handshake, packet: Message, state: bytes) -> Verdict:
        """The client has sent its first packet."""
        try:
            uid = identify(packet)
        except Unusable as unusable:
            # Log what was decided, never the packet: it may carry a password.
            log(Level.DEBUG, f"denied: {unusable}")
            return Verdict_Deny(CloseReason(BAD_REQUEST, str(unusable)))
        return Verdict_Accept(
            Identity(
                uid=uid,
                reply=Payload_Text(WELCOME),
                attributes=[],  # for the router below: roles, a tenant…
                expires_at=None,  # seconds since 1970, when the session shall end
            )
        )


class Router(exports.Router):
    def opened(self, session: Session) -> list[Action]:
        """A client has been authenticated. The place to put it into groups (`Action_Join`)."""
        return []

    def route(self, session: Session, packet: Message) -> list[Action]:
        """A client has sent a packet."""
        actions: list[Action] = []
        try:
            actions += [Action_Deliver(delivery) for delivery in deliveries(packet)]
        except Unusable as unusable:
            log(Level.DEBUG, f"nothing delivered: {unusable}")
        actions.append(Action_Reply(Payload_Text(RECEIVED)))
        return actions

    def closed(self, session: Session, ending: Ending) -> list[Command]:
        """A client has gone. Nothing can be sent to that connection any more, but to others."""
        if ending.remaining == 0:
            return []
        return [Command_Deliver(to(session.uid, Payload_Text(OTHER_CLOSED)))]

    def push(self, sender: Sender, line: str) -> Answer:
        """An internal system has sent a line to the text port. It is answered `ok` if all
        deliveries reach somebody, else `fail`. An `Err` is `fail`, too, and goes into the log."""
        try:
            recipient = uid(fields(line), "uid")
        except Unusable as unusable:
            raise Err(str(unusable)) from None
        # The input is the line itself: it is passed on without a copy.
        return Answer(commands=[Command_Deliver(to(recipient, Payload_Input()))], reply=None)


def identify(packet: Message) -> str:
    """The uid that a first packet proves. This is the rule to change for logins."""
    return uid(fields(text(packet)), "id")


def deliveries(packet: Message) -> list[Delivery]:
    """The deliveries that a packet asks for; none without `msg`. This is the rule to change for
    messages."""
    packet_fields = fields(text(packet))
    recipient = uid(packet_fields, "id")
    if "msg" not in packet_fields:
        return []
    return [to(recipient, Payload_Text(message(packet_fields, "msg")))]


def to(uid: str, message: Payload) -> Delivery:
    """A message to a uid, and to nobody if that is offline."""
    return Delivery(to=Recipient_Uid(uid), message=message, otherwise=None)


def greeting() -> str:
    """What a new client is sent: the setting GREETING. Settings arrive as environment variables."""
    greeting = os.environ.get("GREETING", "HeartBeat")
    if not 1 <= len(greeting) <= 100:
        raise Err("GREETING must have 1 to 100 characters")
    return greeting
