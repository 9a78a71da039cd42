"""{{name}}: who is this? A new client is greeted, and the `id` in its first packet becomes its uid.

Nothing is proved by that: put your own rule into `identify`.

A plugin is asked and answers; the gateway does the rest. Each call may meet a fresh instance, so
nothing can be kept in a global. What stands at the top of this file runs when the plugin is built,
not when it serves. The interfaces are explained in wit/*.wit.
"""

import os

from componentize_py_types import Err
from packet import Unusable, fields, text, uid
from wit_world import exports
from wit_world.exports.authenticator import Handshake, Identity, Prompt, Verdict
from wit_world.exports.authenticator import Verdict_Accept, Verdict_Challenge, Verdict_Deny
from wit_world.imports.logging import Level, log
from wit_world.imports.types import CloseReason, Message, Payload_Text

# Sent once a client is authenticated.
WELCOME = "Link_successful"
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
                attributes=[],  # for the router: roles, a tenant…
                expires_at=None,  # seconds since 1970, when the session shall end
            )
        )


def identify(packet: Message) -> str:
    """The uid that a first packet proves. This is the rule to change."""
    return uid(fields(text(packet)), "id")


def greeting() -> str:
    """What a new client is sent: the setting GREETING. Settings arrive as environment variables."""
    greeting = os.environ.get("GREETING", "HeartBeat")
    if not 1 <= len(greeting) <= 100:
        raise Err("GREETING must have 1 to 100 characters")
    return greeting
