// @ts-check
// The lines of a trace, as a table.

import { html } from "./vendor/preact.js";
import { bytes, clock, micros, number, visible } from "./format.js";
import { Digest, Foreign, Table } from "./parts.js";
import { CAUSES, OUTCOMES, inWords } from "./words.js";

/** @typedef {import("../types").TraceLine & { key: number }} TraceLine */

/** @param {{ lines: TraceLine[] }} props */
export const TraceTable = ({ lines }) =>
  html`<${Table} caption="Trace, newest first" rows=${lines} columns=${COLUMNS} keyOf=${(/** @type {TraceLine} */ line) => line.key} kindOf=${(/** @type {TraceLine} */ line) => (isFailure(line) ? "wrong" : "")} />`;

/** Whether the line says why a user may complain. @param {import("../types").TraceLine} line */
export function isFailure({ what, failure, verdict, result, code }) {
  switch (what) {
    case "call":
      return failure !== undefined;
    case "verdict":
      return verdict === "deny";
    case "action":
      return typeof result === "object" && (reachedNobody(result) || shortfalls(result).length > 0);
    case "message":
      return result !== "queued";
    case "closed":
      return code !== 1000 && code !== 1001;
    default:
      return what === "missed" || what === "lost";
  }
}

/** @typedef {import("../types").Reached} Reached */

/** Another gateway that was asked may have reached somebody. @param {Reached} result */
const reachedNobody = ({ reached, elsewhere }) => reached === 0 && elsewhere !== "asked";

/** Why an action has not reached others, and how many: undefined if nobody knows. @param {Reached} result @returns {[string, number?][]} */
function shortfalls({ reached: _, elsewhere, ...others }) {
  /** @type {[string, number?][]} */
  const counted = Object.entries(others).filter(([, count]) => count !== 0);
  return elsewhere === undefined || elsewhere === "asked" ? counted : [...counted, [elsewhere]];
}

/** @type {import("./parts.js").Column<TraceLine>[]} */
const COLUMNS = [
  { title: "Time", isWide: true, cell: ({ at }) => (at ? html`<time datetime=${at} title=${at}>${clock(at, true)}</time>` : "") },
  { title: "What", isWide: true, cell: ({ what, function: called, action }) => html`${visible(what)}${(called ?? action) && html` <b>${visible(called ?? action ?? "")}</b>`}` },
  { title: "By or for", isWide: true, cell: whom },
  { title: "Took", isNumber: true, cell: ({ micros: took }) => (took === undefined ? "" : micros(took)) },
  { title: "Connection", cell: ({ connection }) => (connection ? html`<code>${visible(connection)}</code>` : "") },
  { title: "Outcome", isWide: true, cell: outcomeOf },
];

/** Which plugin decided, or who is concerned. @param {TraceLine} line */
function whom({ what, slot, plugin, generation, digest, to, address }) {
  if (what === "call") {
    return html`${visible(slot ?? "")}: <${Foreign} text=${plugin ?? ""} limit=${30} /> generation <b>${generation}</b> <${Digest} value=${digest} />`;
  }
  if (slot !== undefined) return visible(slot);
  if (to !== undefined) return html`to <${Foreign} text=${recipient(to)} limit=${60} />`;
  return address ? html`<code>${visible(address)}</code>` : "";
}

/** @param {TraceLine} line */
function outcomeOf(line) {
  const { what, result } = line;
  const size = line.bytes !== undefined && html` <span class="muted">${bytes(line.bytes)}</span>`;
  const payload = line.payload !== undefined && html` <code class="payload"><${Foreign} text=${line.payload} limit=${200} /></code>`;
  switch (what) {
    case "watching":
      if (line.connections === undefined) return "connections from this address that open from now on";
      return `the client has ${number(line.connections)} ${line.connections === 1 ? "connection" : "connections"} now`;
    case "handshake":
      return html`asked for <code><${Foreign} text=${line.path ?? "/"} limit=${100} /></code>`;
    case "packet":
      return html`from the client${size}${payload}`;
    case "call":
      return line.failure
        ? html`<span class="failing">✕ ${visible(line.failure.kind)}</span> <${Foreign} text=${line.failure.reason} limit=${300} />`
        : "ok";
    case "verdict":
      return line.verdict === "deny" ? html`<span class="failing">✕ deny</span> ${denial(line)}` : visible(line.verdict ?? "");
    case "login":
      return html`<b>logged in</b>`;
    case "action":
      return html`${typeof result === "object" ? reached(result) : ""}${size}${payload}`;
    case "message":
      return html`${result === "queued" ? "for the client" : failing(String(result))}${size}${payload}`;
    case "missed":
      return html`<span class="failing">✕ a message, but no connection has this uid</span>${size}${payload}`;
    case "closed":
      return html`${denial(line)} <span class="muted">${inWords(CAUSES, line.cause ?? "") || visible(line.cause ?? "")}</span>`;
    case "lost":
      return html`<span class="failing">▲ ${number(line.lines ?? 0)} ${line.lines === 1 ? "line was" : "lines were"} dropped, because there were too many</span>`;
  }
}

/** The code and reason of a close. @param {TraceLine} line */
const denial = ({ code, reason }) =>
  html`${code === undefined ? "no close frame" : html`code <b>${code}</b>`} ${reason && html`<${Foreign} text=${reason} limit=${130} />`}`;

/** @param {string} outcome @param {number} [count] */
const failing = (outcome, count) =>
  html`<span class="failing">✕ ${count !== undefined && `${number(count)} × `}${inWords(OUTCOMES, outcome) || visible(outcome)}</span>`;

/** How many connections an action reached, and why not others. @param {Reached} result */
function reached(result) {
  const isAsked = result.elsewhere === "asked";
  return html`
    ${reachedNobody(result) && html`<span class="failing">✕ reached nobody</span>`}
    ${result.reached > 0 && `reached ${number(result.reached)}`}${result.reached > 0 && isAsked && ", "}
    ${isAsked && inWords(OUTCOMES, "asked")}
    ${shortfalls(result).map(([name, count]) => html` ${failing(name, count)}`)}
  `;
}

/** {"uid": "bob"} → "uid bob" @param {Record<string, unknown>} to */
const recipient = (to) => ("everyone" in to ? "everyone" : Object.entries(to).map(([kind, name]) => `${kind} ${name}`).join(", "));
