// Reads what strangers send: JSON objects, at best. What is thrown says what is wrong in words that fit a close frame (123 bytes).

/** What is wrong with a packet or line. Anything else that is thrown is a mistake in the plugin, and fails the call. */
export class Unusable extends Error {}

/** The text of a packet. A binary one is read as if it were text. */
export function text(packet) {
  if (packet.tag === "text") return packet.val;
  // QuickJS has no TextDecoder; this pair reads UTF-8 as well.
  let bytes = "";
  for (const byte of packet.val) bytes += String.fromCharCode(byte);
  try {
    return decodeURIComponent(escape(bytes));
  } catch {
    throw new Unusable("not UTF-8");
  }
}

/** The fields of a JSON object. In a Map, because an object has names that nobody sent, such as `constructor`. */
export function object(json) {
  let value;
  try {
    value = JSON.parse(json);
  } catch {
    throw new Unusable("not a JSON object");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Unusable("not a JSON object");
  return new Map(Object.entries(value));
}

/** The uid in a field: a string, or an integer, which equals its digits. JavaScript knows integers up to 2^53 exactly. */
export function uid(fields, name) {
  if (!fields.has(name)) throw new Unusable(`\`${name}\` is missing`);
  const value = fields.get(name);
  if (typeof value !== "string" && !Number.isSafeInteger(value)) {
    throw new Unusable(`\`${name}\` is neither a string nor an integer`);
  }
  const uid = String(value);
  if (!uid.isWellFormed()) throw new Unusable(`\`${name}\` is not Unicode text`);
  // What the gateway takes. It would deny others, too, but not in your words. A code point has 1 to 4 bytes in UTF-8.
  const bytes = unescape(encodeURIComponent(uid)).length;
  if (bytes < 1 || bytes > 256) throw new Unusable(`\`${name}\` must have 1 to 256 bytes`);
  return uid;
}
