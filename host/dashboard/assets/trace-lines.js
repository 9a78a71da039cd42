// @ts-check
// The lines of a trace, as a table.

import { html } from "./vendor/preact.js";
import { bytes, clock, micros, number, visible } from "./format.js";
import { Digest, Foreign, Table } from "./parts.js";
import { CAUSES, inWords } from "./words.js";

/** @typedef {import("../types").TraceLine & { key: number }} TraceLine */

/** @param {{ lines: TraceLine[] }} props */
export const TraceTable = ({ lines }) =>
  html`<${Table} caption="Trace, newest first" rows=${lines} columns=${COLUMNS} keyOf=${(/** @type {TraceLine} */ line) => line.key} kindOf=${(/** @type {TraceLine} */ line) => (isFailure(line) ? "wrong" : "")} />`;

/** Whether the line says why a user may complain. @param {import("../types").TraceLine} line */
export function isFailure({ what, outcome, result, code }) {
  if (what === "call") return outcome !== "ok";
  if (what === "delivered") return result !== "ok";
  return what === "lost" || (what === "closed" && code !== 1000 && code !== 1001);
}

/** @type {import("./parts.js").Column<TraceLine>[]} */
const COLUMNS = [
  { title: "Time", cell: ({ at }) => (at ? html`<time datetime=${at} title=${at}>${clock(at, true)}</time>` : "") },
  { title: "What", cell: (line) => html`<b>${line.function ?? line.what}</b>` },
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
  const payload = line.payload !== undefined && html` <code class="payload"><${Foreign} text=${line.payload} limit=${200} /></code>`;
  switch (line.what) {
    case "handshake":
      return html`asked for <code><${Foreign} text=${line.path ?? "/"} limit=${100} /></code>`;
    case "call":
      return html`
        ${line.outcome === "ok" ? "ok" : html`<span class="failing">✕ ${visible(line.outcome ?? "")}</span>`}${line.bytes !== undefined && html` <span class="muted">for ${bytes(line.bytes)}</span>`}
        ${line.reason && html` <${Foreign} text=${line.reason} limit=${300} />`}${payload}
        ${(line.actions ?? []).length > 0 && html`<ul class="plain actions-list">${line.actions?.map((action) => html`<li>${describe(action)}</li>`)}</ul>`}
      `;
    case "delivered":
      return html`${line.result === "ok" ? "a message for this client" : html`<span class="failing">✕ ${visible(line.result ?? "")}</span>`} <span class="muted">${bytes(line.bytes ?? 0)}</span>${payload}`;
    case "closed":
      return html`code <b>${line.code}</b> ${line.reason && html`<${Foreign} text=${line.reason} limit=${130} />`} <span class="muted">${inWords(CAUSES, line.cause ?? "") || visible(line.cause ?? "")}</span>`;
    case "lost":
      return html`<span class="failing">▲ ${number(line.lines ?? 0)} lines were dropped, because there were too many</span>`;
  }
}

/** @param {NonNullable<TraceLine["actions"]>[0]} action */
function describe({ what, to, bytes: size, reached }) {
  return html`→ ${visible(what)}${to !== undefined && html` to <${Foreign} text=${recipient(to)} limit=${60} />`}${
    size !== undefined && html` <span class="muted">${bytes(size)}</span>`}${reached !== undefined && (reached === 0 ? html` <span class="failing">✕ reached nobody</span>` : `, reached ${number(reached)}`)}`;
}

/** {"uid": "bob"} → "uid bob" @param {Record<string, unknown> | string} to */
function recipient(to) {
  if (typeof to === "string") return to;
  return Object.entries(to).map(([kind, name]) => `${kind} ${name}`).join(", ");
}
