// @ts-check
// Numbers, times and foreign text as people read them.

const integer = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** 12345 → "12,345" */
export const number = (/** @type {number} */ value) => integer.format(value);

/** 12345 → "12.3K", for axes. */
export const short = (/** @type {number} */ value) => (Math.abs(value) < 10 ? trim(value, 2) : compact.format(value));

/** @param {number} value @param {number} digits */
const trim = (value, digits) => String(Number(value.toFixed(digits)));

/** Events in a second: 0.123 → "0.12/s" */
export function rate(/** @type {number} */ value) {
  return `${value < 10 ? trim(value, 2) : number(Math.round(value))}/s`;
}

/** 1536 → "1.5 KiB" */
export function bytes(/** @type {number} */ value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let power = 0;
  for (; value >= 1024 && power < units.length - 1; power++) value /= 1024;
  return `${value < 10 ? trim(value, 1) : number(Math.round(value))} ${units[power]}`;
}

/** A time of a call, given in microseconds: 3 → "3 µs", 1200 → "1.2 ms" */
export function micros(/** @type {number} */ value) {
  if (value < 1000) return `${number(value)} µs`;
  if (value < 1_000_000) return `${trim(value / 1000, value < 10_000 ? 2 : 0)} ms`;
  return `${trim(value / 1_000_000, 2)} s`;
}

/** A part of a whole: (1, 8) → "12.5 %". Only all of it is 100 %. */
export function percent(/** @type {number} */ part, /** @type {number} */ whole) {
  if (whole === 0) return "0 %";
  const value = (part / whole) * 100;
  if (value > 0 && value < 0.1) return "< 0.1 %";
  if (value > 99.9 && value < 100) return "> 99.9 %";
  return `${trim(value, 1)} %`;
}

/** A time span: 11580 → "3 h 13 min" */
export function seconds(/** @type {number} */ value) {
  const [s, min, h, d] = [Math.floor(value), Math.floor(value / 60), Math.floor(value / 3600), Math.floor(value / 86400)];
  if (s < 60) return `${s} s`;
  if (min < 60) return `${min} min`;
  if (h < 24) return `${h} h ${min % 60} min`;
  return `${d} d ${h % 24} h`;
}

/** How long ago a time was: "3 min ago". */
export function ago(/** @type {string} */ time) {
  const passed = (Date.now() - Date.parse(time)) / 1000;
  if (passed < 5) return "now";
  if (passed < 3600) return `${seconds(passed)} ago`;
  return `${seconds(passed).split(" ").slice(0, 2).join(" ")} ago`;
}

const pad = (/** @type {number} */ value, digits = 2) => String(value).padStart(digits, "0");

/** The time of day, with milliseconds if wanted: "20:46:46.123". */
export function clock(/** @type {string} */ time, withMillis = false) {
  const date = new Date(time);
  const text = [date.getHours(), date.getMinutes(), date.getSeconds()].map((value) => pad(value)).join(":");
  return withMillis ? `${text}.${pad(date.getMilliseconds(), 3)}` : text;
}

/** The date of a time and a space, if it is not today: "2026-11-29 " */
export function dateUnlessToday(/** @type {string} */ time) {
  const date = new Date(time);
  if (date.toDateString() === new Date().toDateString()) return "";
  return `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())} `;
}

/** Characters that nobody sees, or that change the direction of text; and spaces but the usual one. */
const HIDDEN = /(?! )[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Z}\p{DI}\u2800]/gu;

/**
 * Makes text of strangers harmless to read: hidden characters are written as their numbers.
 */
export function visible(/** @type {string} */ text) {
  return text.replace(HIDDEN, (character) => {
    if (character === "\n") return "\\n";
    if (character === "\t") return "\\t";
    return `\\u{${character.codePointAt(0)?.toString(16)}}`;
  });
}
