// @ts-check
// What must be said although the part of the page that caused it is gone.

/** @type {string[]} */
let notices = [];
/** @type {Set<() => void>} */
const listeners = new Set();

export const currentNotices = () => notices;

/** @param {string} sentence */
export function addNotice(sentence) {
  notices = [...notices, sentence];
  listeners.forEach((listener) => listener());
}

export function clearNotices() {
  notices = [];
  listeners.forEach((listener) => listener());
}

/**
 * Calls `listener` whenever a notice comes or goes. Returns a function that stops this.
 * @param {() => void} listener
 */
export function onNotice(listener) {
  listeners.add(listener);
  return () => void listeners.delete(listener);
}
