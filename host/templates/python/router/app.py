"""{{name}}: who gets this? A packet {"id":"u2","msg":"hi"} sends `hi` to the client u2; a line
{"uid":"u1"} of an internal system goes to u1 unchanged.

The gateway calls the functions below, and carries out each result in its order. An instance serves
many users: keep the data of a user in the session (`Action_Remember`), never in a global. Code at
the top of this file runs when the plugin is built, not when it serves. wit/*.wit explains the
interfaces.
"""

import os

from componentize_py_types import Err
from packet import Unusable, fields, message, text, uid
from wit_world import exports
from wit_world.exports.router import Action, Action_Deliver, Action_Reply, Answer
from wit_world.exports.router import Command, Command_Deliver
from wit_world.exports.router import Delivery, Ending, Recipient_Uid, Sender, Session
from wit_world.imports.logging import Level, log
from wit_world.imports.types import Message, Payload, Payload_Input, Payload_Text

# Sent to a client when another connection of the same uid has closed.
OTHER_CLOSED = "123"


class Lifecycle(exports.Lifecycle):
    def check(self) -> None:
        """Called before this plugin goes live. An `Err` refuses it: the old plugin goes on
        serving."""
        reply()


class Router(exports.Router):
    def opened(self, session: Session) -> list[Action]:
        """A client has been authenticated. Here you can put it into groups (`Action_Join`)."""
        return []

    def route(self, session: Session, packet: Message) -> list[Action]:
        """A client has sent a packet."""
        actions: list[Action] = []
        try:
            actions += [Action_Deliver(delivery) for delivery in deliveries(packet)]
        except Unusable as unusable:
            # Log the decision, never the packet: it is private.
            log(Level.DEBUG, f"nothing delivered: {unusable}")
        actions.append(Action_Reply(Payload_Text(reply())))
        return actions

    def closed(self, session: Session, ending: Ending) -> list[Command]:
        """A client has gone. Nothing can be sent to its connection any more, only to others."""
        if ending.remaining == 0:
            return []
        return [Command_Deliver(to(session.uid, Payload_Text(OTHER_CLOSED)))]

    def push(self, sender: Sender, line: str) -> Answer:
        """An internal system has sent a line to the text port. The answer is `ok` if every delivery
        reaches somebody, else `fail`. An `Err` is answered `fail`, too, and logged."""
        try:
            recipient = uid(fields(line), "uid")
        except Unusable as unusable:
            raise Err(str(unusable)) from None
        # The input is the line itself: it is passed on without a copy.
        return Answer(commands=[Command_Deliver(to(recipient, Payload_Input()))], reply=None)


# Optional: decide about messages that internal systems publish by HTTP (`api.rules = "router"` in
# the gateway's settings). In the build command (plugin.toml), write the world
# `routing-and-publishing` in place of `{{world}}`. Then remove the number
# signs below. A case for it:
# { publish = { uid = "u1", message = "hi" }, expect = "pass" }
#
# from wit_world.exports.publications import Publisher, Ruling, Ruling_Pass, Ruling_Refuse
# from wit_world.exports.router import Recipient
#
# class Publications(exports.Publications):
#     def publish(self, publisher: Publisher, to: list[Recipient], message: Message) -> Ruling:
#         if publisher.token == "default":
#             return Ruling_Pass()
#         return Ruling_Refuse(f"the token {publisher.token} may not publish")


def deliveries(packet: Message) -> list[Delivery]:
    """Returns the deliveries that a packet asks for; none without `msg`. Change this rule."""
    packet_fields = fields(text(packet))
    recipient = uid(packet_fields, "id")
    if "msg" not in packet_fields:
        return []
    return [to(recipient, Payload_Text(message(packet_fields, "msg")))]


def to(uid: str, message: Payload) -> Delivery:
    """Returns a delivery to a uid. It reaches nobody if the uid is offline."""
    return Delivery(to=Recipient_Uid(uid), message=message, otherwise=None)


def reply() -> str:
    """Returns the answer to every packet: the setting REPLY. Settings are environment variables."""
    reply = os.environ.get("REPLY", "Already_Linked")
    if not 1 <= len(reply) <= 100:
        raise Err("REPLY must have 1 to 100 characters")
    return reply
