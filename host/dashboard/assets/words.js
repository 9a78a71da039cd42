// @ts-check
// The gateway's short names, in words.

/** What happens in each stage. */
/** @type {Record<string, string>} */
export const STAGES = {
  shadow: "decides for some new clients without effect; its verdicts are compared",
  canary: "serves some of the new connections",
  probation: "serves everybody, and is rolled back if it fails more often than before",
  live: "serves everybody",
  kept: "served before, and is kept ready",
};

/** Why clients were refused. */
/** @type {Record<string, string>} */
export const DENIALS = {
  plugin: "a plugin denied the client",
  "not-accepted": "no authenticator accepted the client",
  "too-late": "not logged in within the time allowed",
  failed: "a plugin failed or was too busy",
  duplicate: "the uid is connected already",
  expired: "the session has expired",
  "protocol-error": "broke the WebSocket protocol",
  closed: "blocked, or closed before the login ended",
};

/** Why connections ended. */
/** @type {Record<string, string>} */
export const CAUSES = {
  client: "the client closed it",
  plugin: "a plugin closed it, or failed",
  unauthenticated: "not logged in",
  operator: "an operator closed it",
  silent: "the client was silent for too long",
  slow: "the client did not read fast enough",
  replaced: "another login with the same uid",
  expired: "the session expired",
  "protocol-error": "the client broke the protocol or a limit",
  lost: "the network connection was lost",
  shutdown: "the gateway drained or ended",
};

/** What became of a message for a connection. */
/** @type {Record<string, string>} */
export const OUTCOMES = {
  "outbox-full": "outbox full: the client does not read",
  "over-budget": "no memory left (outbox.total_bytes)",
  closing: "the connection was closing",
  asked: "another gateway was asked",
  moved: "the client was just moving to another gateway",
  expired: "too late at another gateway",
  unreachable: "another gateway cannot be reached",
  overload: "too much waits for other gateways",
  unknown: "another gateway did not answer",
};

/** What happened to a plugin's generation. */
/** @type {Record<string, string>} */
export const EVENTS = {
  refused: "refused",
  shadow: "in shadow",
  canary: "canary",
  probation: "on probation",
  live: "live",
  alert: "alert",
  withdrawn: "withdrawn",
  "rolled-back": "rolled back",
};

/** What the limits of the budgets hold back. */
/** @type {Record<string, string>} */
export const BUDGETS = {
  "outbox.total_bytes": "messages that wait for clients",
  "inbox.total_bytes": "messages that arrive from clients",
  "engine.memory": "memory of all plugins",
};

/**
 * Returns the words for a name; nothing for an unknown one.
 * @param {Record<string, string>} words @param {string} name
 */
export const inWords = (words, name) => (Object.hasOwn(words, name) ? words[name] : "");
