// Reads packets and lines. They may hold anything, not only JSON objects. A thrown `Unusable` says
// what is wrong, in at most 123 bytes: it fits a close frame.

/**
 * A packet or line cannot be used. The text says why. Any other exception is a mistake in the
 * plugin, and fails the call.
 */
export class Unusable extends Error {}

/** Returns the text of a packet. A binary packet is read as text. */
export function text(packet) {
  if (packet.tag === "text") return packet.val;
  // QuickJS has no TextDecoder; this pair reads UTF-8 as well.
  const parts = [];
  for (let at = 0; at < packet.val.length; at += 4096) {
    parts.push(String.fromCharCode.apply(null, packet.val.slice(at, at + 4096)));
  }
  try {
    return decodeURIComponent(escape(parts.join("")));
  } catch {
    throw new Unusable("not UTF-8");
  }
}

/**
 * Returns the fields of a JSON object, in a Map: an object has names that nobody sent, such as
 * `constructor`.
 */
export function object(json) {
  if (isDeep(json)) throw new Unusable("nested too deeply");
  let value;
  try {
    value = JSON.parse(json);
  } catch {
    throw new Unusable("not a JSON object");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new Unusable("not a JSON object");
  }
  return new Map(Object.entries(value));
}

/**
 * Returns whether arrays and objects are more than 100 levels deep. JSON.parse would exhaust the
 * stack, and the call would fail.
 */
function isDeep(json) {
  // Few brackets cannot be nested deeply: for most packets, this check is enough.
  if (json.split("[", 100).length + json.split("{", 100).length <= 100) return false;
  let depth = 0;
  for (let at = 0; at < json.length; at++) {
    switch (json.charCodeAt(at)) {
      case 0x22: // "
        at = endOfString(json, at);
        break;
      case 0x5b: // [
      case 0x7b: // {
        if (++depth > 100) return true;
        break;
      case 0x5d: // ]
      case 0x7d: // }
        depth--;
        break;
    }
  }
  return false;
}

/**
 * Returns where the string ends that starts at `at`: at the next quote after an even number of
 * backslashes.
 */
function endOfString(json, at) {
  for (;;) {
    const quote = json.indexOf('"', at + 1);
    if (quote === -1) return json.length;
    let before = quote;
    while (json[before - 1] === "\\") before--;
    if ((quote - before) % 2 === 0) return quote;
    at = quote;
  }
}

/**
 * Returns the uid in a field: a string, or an integer, which counts as its digits. JavaScript knows
 * integers up to 2^53 exactly.
 */
export function uid(fields, name) {
  if (!fields.has(name)) throw new Unusable(`\`${name}\` is missing`);
  const value = fields.get(name);
  if (typeof value !== "string" && !Number.isSafeInteger(value)) {
    throw new Unusable(`\`${name}\` is neither a string nor an integer`);
  }
  const uid = String(value);
  if (!uid.isWellFormed()) throw new Unusable(`\`${name}\` is not Unicode text`);
  // The limits of the gateway. It would deny other uids, too, but not in your words. A code point
  // has 1 to 4 bytes in UTF-8.
  const bytes = unescape(encodeURIComponent(uid)).length;
  if (bytes < 1 || bytes > 256) throw new Unusable(`\`${name}\` must have 1 to 256 bytes`);
  return uid;
}
