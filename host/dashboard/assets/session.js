// @ts-check
// Who has logged in. The token stays in this tab, and is forgotten when the tab closes.

/** @typedef {import("../types").Session} Session */

const KEY = "hotgate.session";

/** @type {Session | null} */
let session = read();
/** Why nobody is logged in, for the login page. */
let farewell = "";
/** @type {Set<() => void>} */
const listeners = new Set();

function read() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY) ?? "null");
  } catch {
    return null;
  }
}

export function currentSession() {
  return session;
}

/** Why the last session ended, in words; empty if there was none. */
export function reasonForLogin() {
  return farewell;
}

/** @param {Session} started */
export function startSession(started) {
  session = started;
  farewell = "";
  try {
    sessionStorage.setItem(KEY, JSON.stringify(started));
  } catch {
    // The browser keeps nothing for this page: the session lasts until it is loaded again.
  }
  listeners.forEach((listener) => listener());
}

/** @param {string} reason */
export function endSession(reason) {
  session = null;
  farewell = reason;
  try {
    sessionStorage.removeItem(KEY);
  } catch {
    // There was none.
  }
  listeners.forEach((listener) => listener());
}

/**
 * Calls `listener` whenever a session starts or ends. Returns a function that stops this.
 * @param {() => void} listener
 */
export function onSession(listener) {
  listeners.add(listener);
  return () => void listeners.delete(listener);
}

/** Takes the one-time code out of the address, so that it stays neither there nor in the history. */
export function takeCode() {
  const code = /^#code=([\w-]+)$/.exec(location.hash)?.[1];
  if (code) history.replaceState(null, "", location.pathname);
  return code ?? null;
}
