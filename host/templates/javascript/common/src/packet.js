// Reads what strangers send: JSON objects, at best. What is thrown says what is wrong in words that
// fit a close frame (123 bytes).

/**
 * What is wrong with a packet or line. Anything else that is thrown is a mistake in the plugin, and
 * fails the call.
 */
export class Unusable extends Error {}

/** The text of a packet. A binary one is read as if it were text. */
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
 * The fields of a JSON object. In a Map, because an object has names that nobody sent, such as
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
 * Whether arrays and objects are more than 100 levels deep. JSON.parse would run out of stack
 * there, and the call would fail.
 */
function isDeep(json) {
  // Few brackets cannot be deep: most packets need no more than this.
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
 * Where the string ends that starts at `at`: at the next quote after an even number of backslashes.
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
 * The uid in a field: a string, or an integer, which equals its digits. JavaScript knows integers
 * up to 2^53 exactly.
 */
export function uid(fields, name) {
  if (!fields.has(name)) throw new Unusable(`\`${name}\` is missing`);
  const value = fields.get(name);
  if (typeof value !== "string" && !Number.isSafeInteger(value)) {
    throw new Unusable(`\`${name}\` is neither a string nor an integer`);
  }
  const uid = String(value);
  if (!uid.isWellFormed()) throw new Unusable(`\`${name}\` is not Unicode text`);
  // What the gateway takes. It would deny others, too, but not in your words. A code point has 1 to
  // 4 bytes in UTF-8.
  const bytes = unescape(encodeURIComponent(uid)).length;
  if (bytes < 1 || bytes > 256) throw new Unusable(`\`${name}\` must have 1 to 256 bytes`);
  return uid;
}
