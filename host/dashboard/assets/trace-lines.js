// @ts-check
// The lines of a trace, as a table.

import { html } from "./vendor/preact.js";
import { bytes, clock, micros, number, visible } from "./format.js";
import { Digest, Foreign, Table } from "./parts.js";
import { CAUSES, inWords } from "./words.js";

/** @typedef {import("../types").TraceLine & { key: number }} TraceLine */

/** @param {{ lines: TraceLine[] }} props */
export function TraceTable({ lines }) {
  const keyOf = (/** @type {TraceLine} */ line) => line.key;
  const kindOf = (/** @type {TraceLine} */ line) => (isFailure(line) ? "wrong" : "");
  return html`<${Table} caption="Trace, newest first" rows=${lines} columns=${COLUMNS} keyOf=${keyOf} kindOf=${kindOf} />`;
}

/** Whether the line says why a user may complain. @param {import("../types").TraceLine} line */
export function isFailure({ what, outcome, result, code }) {
  if (what === "call") return outcome !== "ok";
  if (what === "delivered") return result !== "ok";
  return what === "lost" || (what === "closed" && code !== 1000 && code !== 1001);
}

/** @type {import("./parts.js").Column<TraceLine>[]} */
const COLUMNS = [
  { title: "Time", isWide: true, cell: ({ at }) => (at ? html`<time datetime=${at} title=${at}>${clock(at, true)}</time>` : "") },
  { title: "What", isWide: true, cell: (line) => html`<b>${line.function ?? line.what}</b>` },
  { title: "By", isWide: true, cell: decidedBy },
  { title: "Took", isNumber: true, cell: ({ micros: took }) => (took === undefined ? "" : micros(took)) },
  { title: "Outcome", isWide: true, cell: outcomeOf },
  { title: "Connection", cell: ({ connection }) => (connection ? html`<code>${visible(connection)}</code>` : "") },
];

/** @param {TraceLine} line */
function decidedBy({ what, slot, plugin, generation, digest, by, address }) {
  if (what === "call") {
    return html`${visible(slot ?? "")}: <${Foreign} text=${plugin ?? ""} limit=${30} /> generation <b>${generation}</b> <${Digest} value=${digest} />`;
  }
  if (what === "handshake") return html`<code>${visible(address ?? "")}</code>`;
  return visible(by ?? "");
}

/** @param {TraceLine} line */
function outcomeOf(line) {
  switch (line.what) {
    case "handshake":
      return html`asked for <code><${Foreign} text=${line.path ?? "/"} limit=${100} /></code>`;
    case "call":
      return html`<${Call} line=${line} />`;
    case "delivered":
      return html`<${Result} word=${line.result} ok="a message for this client" /> <${Content} line=${line} />`;
    case "closed":
      return html`code <b>${line.code}</b> <${Foreign} text=${line.reason ?? ""} limit=${130} /> <span class="muted">${causeOf(line)}</span>`;
    case "lost":
      return html`<span class="failing">▲ ${number(line.lines ?? 0)} lines were dropped, because there were too many</span>`;
  }
}

/** @param {{ line: TraceLine }} props */
function Call({ line }) {
  const { outcome, reason, actions = [] } = line;
  return html`
    <${Result} word=${outcome} ok="ok" /> <${Content} line=${line} /> <${Foreign} text=${reason ?? ""} limit=${300} />
    ${actions.length > 0 && html`<ul class="plain">${actions.map((action) => html`<li><${Action} ...${action} /></li>`)}</ul>`}
  `;
}

/** @param {{ word: string | undefined, ok: string }} props */
const Result = ({ word = "", ok }) => (word === "ok" ? ok : html`<span class="failing">✕ ${visible(word)}</span>`);

/** How large a message is; and the message, if the gateway shows it. @param {{ line: TraceLine }} props */
const Content = ({ line: { bytes: size, payload } }) => html`
  ${size !== undefined && html`<span class="muted">${bytes(size)}</span>`}
  ${payload !== undefined && html`<code class="payload"><${Foreign} text=${payload} limit=${200} /></code>`}
`;

const causeOf = ({ cause = "" }) => inWords(CAUSES, cause) || visible(cause);

/** @param {NonNullable<TraceLine["actions"]>[0]} action */
function Action({ what, to, bytes: size, reached }) {
  const recipient = to !== undefined && html` to <${Foreign} text=${nameOf(to)} limit=${60} />`;
  const sized = size !== undefined && html` <span class="muted">${bytes(size)}</span>`;
  const result = reached === 0 ? html` <span class="failing">✕ reached nobody</span>` : reached !== undefined && `, reached ${number(reached)}`;
  return html`→ ${visible(what)}${recipient}${sized}${result}`;
}

/** {"uid": "bob"} → "uid bob" @param {Record<string, unknown> | string} to */
function nameOf(to) {
  if (typeof to === "string") return to;
  return Object.entries(to).map(([kind, name]) => `${kind} ${name}`).join(", ");
}
