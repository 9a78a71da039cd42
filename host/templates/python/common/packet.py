"""Reads packets and lines. They may hold anything, not only JSON objects."""

import json
import re

from wit_world.imports.types import Message, Message_Text


class Unusable(Exception):
    """A packet or line cannot be used. The text says why, and fits a close frame (123 bytes).

    Any other exception is a mistake in the plugin, and fails the call.
    """


def text(packet: Message) -> str:
    """Returns the text of a packet. A binary packet is read as text."""
    if isinstance(packet, Message_Text):
        return packet.value
    try:
        return packet.value.decode()
    except UnicodeDecodeError:
        raise Unusable("not UTF-8") from None


def fields(line: str) -> dict:
    """Returns the fields of a JSON object."""
    if _is_deep(line):
        raise Unusable("nested too deeply")
    try:
        value = json.loads(line, parse_constant=_no_constant)
    except ValueError:
        raise Unusable("not a JSON object") from None
    if not isinstance(value, dict):
        raise Unusable("not a JSON object")
    return value


def uid(fields: dict, name: str) -> str:
    """Returns the uid in a field: a string, or an integer, which counts as its digits."""
    if name not in fields:
        raise Unusable(f"`{name}` is missing")
    value = fields[name]
    # To Python, True is an integer, too.
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise Unusable(f"`{name}` is neither a string nor an integer")
    uid = encodable(str(value), name)
    # The limits of the gateway. It would deny other uids, too, but not in your words.
    if not 1 <= len(uid.encode()) <= 256:
        raise Unusable(f"`{name}` must have 1 to 256 bytes")
    return uid


def message(fields: dict, name: str) -> str:
    """Returns the message in a field: the text of a string, any other value as JSON."""
    value = fields[name]
    if not isinstance(value, str):
        try:
            value = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        # A number like 1e999, which became infinite.
        except ValueError:
            raise Unusable(f"`{name}` is no message") from None
    return encodable(value, name)


def encodable(text: str, name: str) -> str:
    """Returns the text if UTF-8 can hold it: JSON can spell half of a character, UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unusable(f"`{name}` is not Unicode text") from None
    return text


# Matches everything except the brackets outside strings.
_NO_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[^"\[\]{}]+', re.DOTALL)


def _is_deep(line: str) -> bool:
    """Returns whether arrays and objects are more than 100 levels deep. A plugin has less stack
    than Python assumes: json.loads would exhaust the stack, and the call would fail."""
    # Few brackets cannot be nested deeply: for most packets, this check is enough.
    if line.count("[") + line.count("{") <= 100:
        return False
    depth = 0
    for bracket in _NO_BRACKETS.sub("", line):
        depth += 1 if bracket in "[{" else -1
        if depth > 100:
            return True
    return False


def _no_constant(name: str):
    raise ValueError(f"{name} is no JSON")  # Python would accept NaN and Infinity
