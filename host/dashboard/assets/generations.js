// @ts-check
// Generations of a plugin beside each other: which one fails?

import { html } from "./vendor/preact.js";
import { bytes, micros, number, percent, visible } from "./format.js";
import { sum } from "./history.js";
import { Digest, Empty, StageBadge, Table, When } from "./parts.js";

/** @typedef {import("../types").Generation} Generation */
/** @typedef {import("../types").FunctionCalls} FunctionCalls */

const failuresOf = (/** @type {{ failures: Record<string, number> }} */ counted) => sum(counted.failures);

/** How many calls failed, and their share: "2 (0.5 %)". @param {{ calls: number, failures: Record<string, number> }} counted */
function failureShare(counted) {
  const failed = failuresOf(counted);
  return failed === 0 ? "0" : `${number(failed)} (${percent(failed, counted.calls)})`;
}

/** The kinds of failures: "2 trap, 1 deadline". @param {Record<string, number>} failures */
const kinds = (failures) => Object.entries(failures).map(([kind, count]) => `${number(count)} ${kind}`).join(", ");

/** How many calls failed. @param {{ counted: { calls: number, failures: Record<string, number> } }} props */
export const FailureCount = ({ counted }) => html`<span class=${failuresOf(counted) > 0 ? "failing" : ""}>${failureShare(counted)}</span>`;

/** How many calls failed, and how. @param {{ counted: { calls: number, failures: Record<string, number> } }} props */
const Failures = ({ counted }) => html`<${FailureCount} counted=${counted} /> <span class="muted">${kinds(counted.failures)}</span>`;

/** The slowest function decides how a generation feels. @param {Generation} generation */
const slowest = ({ functions }) => (functions.length === 0 ? "–" : micros(Math.max(...functions.map((called) => called.p99_us))));

/** @param {{ slot: import("../types").Slot }} props */
export function GenerationTable({ slot }) {
  const rows = [slot.candidate, slot.live, slot.previous].filter((generation) => generation !== null);
  return html`<${Table} caption="Generations of ${visible(slot.slot)}" rows=${rows} columns=${COLUMNS} keyOf=${(/** @type {Generation} */ row) => row.generation} />`;
}

/** @type {import("./parts.js").Column<Generation>[]} */
const COLUMNS = [
  { title: "Generation", cell: ({ generation }) => html`<b>${generation}</b>` },
  { title: "Stage", cell: ({ stage }) => html`<${StageBadge} stage=${stage} />` },
  { title: "Since", isWide: true, cell: ({ since }) => html`<${When} at=${since} />` },
  { title: "Calls", isNumber: true, cell: ({ calls }) => number(calls) },
  { title: "Failed", isNumber: true, isWide: true, cell: (row) => html`<${Failures} counted=${row} />` },
  { title: "Slowest p99", isNumber: true, cell: slowest },
  { title: "Code", isNumber: true, cell: (row) => bytes(row.code_bytes) },
  { title: "Digest", isWide: true, cell: ({ digest }) => html`<${Digest} value=${digest} />` },
];

/** @param {{ generation: Generation }} props */
export function Functions({ generation }) {
  const title = `Calls of generation ${generation.generation}`;
  return html`
    <h3>${title}</h3>
    ${generation.functions.length === 0
      ? html`<${Empty}>Nobody has called it yet.<//>`
      : html`<${Table} caption=${title} rows=${generation.functions} columns=${FUNCTION_COLUMNS} keyOf=${(/** @type {FunctionCalls} */ row) => row.function} />`}
  `;
}

/** @type {import("./parts.js").Column<FunctionCalls>[]} */
const FUNCTION_COLUMNS = [
  { title: "Function", cell: (row) => html`<code>${row.function}</code>` },
  { title: "Calls", isNumber: true, cell: ({ calls }) => number(calls) },
  { title: "Failed", isNumber: true, cell: (row) => html`<${Failures} counted=${row} />` },
  { title: "p50", isNumber: true, cell: (row) => micros(row.p50_us) },
  { title: "p99", isNumber: true, cell: (row) => micros(row.p99_us) },
];

/**
 * How the verdicts of a generation in shadow differ from those of the live one.
 * @param {{ shadow: NonNullable<Generation["shadow"]>, candidate: number, live: number }} props
 */
export function ShadowComparison({ shadow, candidate, live }) {
  const { compared, agreed, skipped } = shadow;
  const differed = Object.entries(shadow.differed).sort((one, other) => other[1] - one[1]);
  return html`
    <div class="shadow">
      <h3>In shadow: generation ${live} (live) → generation ${candidate}</h3>
      ${compared === 0 && html`<${Empty}>No login has been compared yet. Log in with a client, for example in <a href="#/try">Try it</a>.<//>`}
      ${compared > 0 && html`
        <p><b>${number(agreed)}</b> of ${number(compared)} verdicts agree (${percent(agreed, compared)}).</p>
        ${skipped > 0 && html`<p>${number(skipped)} were skipped, because it did not keep up.</p>`}
        ${differed.length === 0 && html`<p>None differs.</p>`}
        <ul class="counts">
          ${differed.map(
            ([verdicts, count]) => html`
              <li><b>${number(count)}</b> <meter min="0" max=${compared} value=${count} aria-label=${verdicts}></meter>
                <span><code>${visible(verdicts)}</code>${verdicts === "accept → accept" && " with different uids"}</span></li>
            `,
          )}
        </ul>
      `}
    </div>
  `;
}
