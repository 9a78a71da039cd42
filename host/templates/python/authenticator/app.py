"""{{name}}: who is this? A new client is greeted, and the `id` in its first packet becomes its uid.

This proves nothing: put your own rule into `identify`.

The gateway calls the functions below, and carries out the results. Each call may run in a fresh
instance, so keep nothing in a global. Code at the top of this file runs when the plugin is built,
not when it serves. wit/*.wit explains the interfaces.
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
# The close code for a first packet that cannot be used. You may give 3000 to 4899 any meaning.
BAD_REQUEST = 4400


class Lifecycle(exports.Lifecycle):
    def check(self) -> None:
        """Called before this plugin goes live. An `Err` refuses it: the old plugin goes on
        serving."""
        greeting()


class Authenticator(exports.Authenticator):
    def greet(self, handshake: Handshake) -> Verdict:
        """A connection has opened. `handshake` holds all that is known: address, path, query, and
        the headers that `websocket.pass_headers` lists. If it holds a token, you can accept or deny
        here already."""
        # `authenticate` would get the state; none is needed.
        return Verdict_Challenge(Prompt(message=Payload_Text(greeting()), state=b""))

    def authenticate(self, handshake: Handshake, packet: Message, state: bytes) -> Verdict:
        """The client has sent its first packet."""
        try:
            uid = identify(packet)
        except Unusable as unusable:
            # Log the decision, never the packet: it may carry a password.
            log(Level.DEBUG, f"denied: {unusable}")
            return Verdict_Deny(CloseReason(BAD_REQUEST, str(unusable)))
        return Verdict_Accept(
            Identity(
                uid=uid,
                reply=Payload_Text(WELCOME),
                attributes=[],  # for the router: roles, a tenant…
                expires_at=None,  # seconds since 1970, when the session ends
            )
        )


def identify(packet: Message) -> str:
    """Returns the uid for a first packet. Change this rule."""
    return uid(fields(text(packet)), "id")


def greeting() -> str:
    """Returns the message to a new client: the setting GREETING. Settings are environment
    variables."""
    greeting = os.environ.get("GREETING", "HeartBeat")
    if not 1 <= len(greeting) <= 100:
        raise Err("GREETING must have 1 to 100 characters")
    return greeting
