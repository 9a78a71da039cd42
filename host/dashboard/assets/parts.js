// @ts-check
// Small parts that all pages are made of.

import { Problem } from "./api.js";
import { ago, bytes, clock, dateUnlessToday, number, percent, visible } from "./format.js";
import { STAGES, inWords } from "./words.js";
import { html } from "./vendor/preact.js";

/** @typedef {import("./vendor/preact.js").Node} Node */

/** The most characters of foreign text that the mouse pointer shows. */
const MOST_SHOWN = 1000;

/**
 * A part of a page with a heading.
 * @param {{ title: string, aside?: Node, children?: Node }} props
 */
export function Panel({ title, aside, children }) {
  return html`
    <section class="panel">
      <header><h2>${title}</h2>${aside && html`<div class="aside">${aside}</div>`}</header>
      ${children}
    </section>
  `;
}

/** Says in words that there is nothing to show. @param {{ children?: Node }} props */
export const Empty = ({ children }) => html`<p class="empty">${children}</p>`;

/**
 * Says what went wrong. `what` names the thing that a gateway may not have.
 * @param {{ problem: Error | null | undefined, what?: string }} props
 */
export function Trouble({ problem, what }) {
  if (!problem) return null;
  if (what && problem instanceof Problem && problem.isMissing) {
    const sentence = `This gateway does not offer ${what} yet. A newer version does, unless its settings switch it off.`;
    return html`<p class="trouble note" role="status">${sentence}</p>`;
  }
  return html`<div role="alert"><${Wrong}>${visible(problem.message)}<//></div>`;
}

/**
 * Figures of the gateway. When there are no newer ones, it says so, says of when these are, and dims them.
 * @param {{ problem: Error | null, at: number, children?: Node }} props
 */
export function Figures({ problem, at, children }) {
  return html`
    <${Trouble} problem=${problem} />
    ${problem && html`<p class="muted">What follows is as of ${clock(new Date(at).toISOString())}.</p>`}
    <div class=${problem ? "stack stale" : "stack"}>${children}</div>
  `;
}

/**
 * Says that an answer about all gateways of a cluster may lack some.
 * @param {{ missing?: number[], complete?: boolean }} props
 */
export function Incomplete({ missing = [], complete = true }) {
  if (missing.length > 0) return html`<p class="trouble">▲ Not all gateways have answered. Missing: ${missing.join(", ")}.</p>`;
  return complete ? null : html`<p class="trouble">▲ Other gateways may be missing: this one cannot speak with all of them.</p>`;
}

/** Something that is wrong. @param {{ children?: Node }} props */
export const Wrong = ({ children }) => html`<p class="trouble"><span aria-hidden="true">✕</span> ${children}</p>`;

/**
 * Text that a stranger wrote. It cannot change what is around it, and is cut if it is long.
 * @param {{ text: string, limit?: number }} props
 */
export function Foreign({ text, limit = 80 }) {
  const shown = visible(text.slice(0, MOST_SHOWN));
  const isCut = text.length > limit;
  return html`<bdi class="foreign" title=${isCut ? shown : undefined}>${isCut ? shown.slice(0, limit) : shown}${
    isCut && html`<span class="muted">… (${number(text.length)} characters)</span>`
  }</bdi>`;
}

/** When something happened; the pointer shows the exact time. @param {{ at: string }} props */
export function When({ at }) {
  const date = dateUnlessToday(at);
  const minute = clock(at).slice(0, 5);
  return html`<time datetime=${at} title=${at}>${date ? `${date}${minute}` : `${minute} · ${ago(at)}`}</time>`;
}

/** The first digits of a digest. @param {{ value: string | null | undefined }} props */
export const Digest = ({ value }) => (value ? html`<code title=${value}>${value.slice(0, 12)}</code>` : "–");

/** A word with a shape and a colour. @param {{ kind: string, children?: Node, title?: string }} props */
export const Badge = ({ kind, children, title }) => html`<span class="badge ${kind}" title=${title}>${children}</span>`;

const STAGE_KINDS = { shadow: "quiet", canary: "trial", probation: "trial", live: "good", kept: "quiet" };

/** The stage of a generation. @param {{ stage: import("../types").Stage }} props */
export const StageBadge = ({ stage }) =>
  html`<${Badge} kind=${STAGE_KINDS[stage] ?? "quiet"} title=${inWords(STAGES, stage)}>${stage}<//>`;

/**
 * How much of a limit is used.
 * @param {{ label: string, hint?: string, used: number, limit: number, unit?: "bytes" }} props
 */
export function Usage({ label, hint, used, limit, unit }) {
  const written = unit === "bytes" ? bytes : number;
  const share = limit > 0 ? used / limit : 0;
  const kind = share >= 0.9 ? "bad" : share >= 0.8 ? "warning" : "";
  return html`
    <div class="usage">
      <div class="usage-line">
        <span>${label}${hint && html` <span class="muted">${hint}</span>`}</span>
        <span class="figures">${written(used)} of ${written(limit)} <span class="muted">${percent(used, limit)}</span></span>
      </div>
      <meter class=${kind} min="0" max="1" value=${Math.min(share, 1)} aria-label=${label}>${percent(used, limit)}</meter>
    </div>
  `;
}

/**
 * A column of a table. `isNumber`: to the right. `isWide`: gets a line of its own in a card.
 * @template Row
 * @typedef {{ title: string, cell: (row: Row) => Node, isNumber?: boolean, isWide?: boolean }} Column
 */

/**
 * A table that becomes a list of cards on a narrow screen. The roles keep it a table for screen readers then.
 * @template Row
 * @param {{
 *   caption: string, columns: Column<Row>[], rows: Row[],
 *   keyOf: (row: Row) => string | number, kindOf?: (row: Row) => string,
 * }} props
 */
export function Table({ caption, columns, rows, keyOf, kindOf }) {
  return html`
    <table role="table" class="cards" aria-label=${caption}>
      <thead role="rowgroup">
        <tr role="row">
          ${columns.map(({ title, isNumber }) => html`<th role="columnheader" scope="col" class=${isNumber && "number"}>${title}</th>`)}
        </tr>
      </thead>
      <tbody role="rowgroup">
        ${rows.map(
          (row) => html`
            <tr role="row" key=${keyOf(row)} class=${kindOf?.(row)}>
              ${columns.map((column) => html`<${Cell} column=${column} content=${column.cell(row)} />`)}
            </tr>
          `,
        )}
      </tbody>
    </table>
  `;
}

/** An empty cell is left out of a card. @param {{ column: Column<any>, content: Node }} props */
function Cell({ column, content }) {
  const kinds = [column.isNumber && "number", column.isWide && "wide", !content && content !== 0 && "blank"].filter(Boolean).join(" ");
  return html`<td role="cell" class=${kinds} data-title=${column.title}><div>${content}</div></td>`;
}

/**
 * A button.
 * @param {{
 *   onClick: () => void, children?: Node, kind?: string, disabled?: boolean, label?: string, pressed?: boolean,
 * }} props
 */
export const Button = ({ onClick, children, kind = "", disabled, label, pressed }) => html`
  <button type="button" class=${kind} disabled=${disabled} aria-label=${label} aria-pressed=${pressed} onClick=${onClick}>
    ${children}
  </button>
`;
