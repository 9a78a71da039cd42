// @ts-check
// One slot: its generations, their stages, and what an operator can do.

import { html, useState } from "./vendor/preact.js";
import { DropZone, SlotActions } from "./deploy.js";
import { bytes, number, visible } from "./format.js";
import { GenerationTable, Functions, ShadowComparison } from "./generations.js";
import { Digest, Empty, Foreign, Panel, When, Wrong } from "./parts.js";
import { EVENTS, STAGES, inWords } from "./words.js";

/** @typedef {import("../types").Slot} Slot */

/** The way of a new generation, in order. */
const STEPS = ["shadow", "canary", "probation", "live"];

/** @param {{ slot: Slot, refresh?: () => void, canChange: boolean }} props */
export function SlotPanel({ slot, refresh = () => {}, canChange }) {
  const [said, setSaid] = useState("");
  const done = (/** @type {string} */ sentence) => {
    setSaid(sentence);
    refresh();
  };
  const { candidate, live } = slot;
  const newest = candidate ?? live;
  const origin = html`<${Foreign} text=${slot.plugin} /> from <code><${Foreign} text=${slot.source} limit=${60} /></code>`;
  return html`
    <div class="slot" id="slot-${slot.slot}">
      <${Panel} title=${visible(slot.slot)} aside=${origin}>
        <${Steps} stage=${newest.stage} generation=${newest.generation} />
        <${GenerationTable} slot=${slot} />
        <p class="said" role="status">${said}</p>
        ${canChange && html`<${SlotActions} slot=${slot} done=${done} />`}
        ${candidate?.shadow && html`<${ShadowComparison} shadow=${candidate.shadow} candidate=${candidate.generation} live=${live.generation} />`}
        <${Problems} slot=${slot} />
        ${canChange && html`<${DropZone} slot=${slot} done=${done} />`}
        <details>
          <summary>Calls of each function</summary>
          ${[candidate, live].map((generation) => generation && html`<${Functions} generation=${generation} />`)}
        </details>
        <details>
          <summary>History and counters</summary>
          <${SlotHistory} slot=${slot} />
        </details>
      <//>
    </div>
  `;
}

/** Where the newest generation is on its way. @param {{ stage: string, generation: number }} props */
function Steps({ stage, generation }) {
  return html`
    <ol class="steps" aria-label="Stages">
      ${STEPS.map((step) => html`<li aria-current=${step === stage ? "step" : undefined}>${step}</li>`)}
    </ol>
    <p class="muted stage-words">Generation ${generation} ${inWords(STAGES, stage)}.</p>
  `;
}

/** What is wrong in this slot. @param {{ slot: Slot }} props */
function Problems({ slot }) {
  return html`
    ${slot.refused.map((refused) => html`<${Refused} ...${refused} />`)}
    ${slot.unsaved && html`<${Wrong}>Rollbacks cannot be saved: <${Reason} text=${slot.unsaved} /><//>`}
    ${[slot.candidate, slot.live].map((generation) => generation && html`<${LastFailure} generation=${generation} />`)}
  `;
}

/** @param {Slot["refused"][0]} props */
function Refused({ what, digest, reason }) {
  const verb = what === "settings" ? "do" : "does";
  const which = digest && html` (<${Digest} value=${digest} />)`;
  return html`<${Wrong}>The ${what} on disk ${verb} not serve${which}: <${Reason} text=${reason} /><//>`;
}

/** @param {{ generation: import("../types").Generation }} props */
function LastFailure({ generation: { generation, last_error: last } }) {
  if (!last) return null;
  const where = html`<code>${last.function}</code> (${last.kind})`;
  return html`
    <p class="failure">
      <span aria-hidden="true">▲</span> Generation ${generation} failed last <${When} at=${last.at} /> in ${where}: <${Reason} text=${last.reason} />
    </p>
  `;
}

/** @param {{ text: string }} props */
const Reason = ({ text }) => html`<${Foreign} text=${text} limit=${400} />`;

/** @param {{ slot: Slot }} props */
function SlotHistory({ slot }) {
  return html`
    <p class="muted">
      ${number(slot.swaps)} swaps, ${number(slot.rollbacks)} rollbacks, ${number(slot.refusals)} refused components,${" "}
      ${number(slot.alerts)} alerts. ${number(slot.overloaded)} calls were refused, because the plugin was busy.${" "}
      ${number(slot.instances)} instances use ${bytes(slot.memory_bytes)}.
    </p>
    ${slot.history.length === 0 && html`<${Empty}>Nothing has happened yet.<//>`}
    <ol class="events">
      ${slot.history.toReversed().map(
        (event) => html`
          <li class="is-${event.what}">
            <${When} at=${event.at} />
            <span>
              <b>${inWords(EVENTS, event.what) || event.what}</b> ${event.generation !== null && `generation ${event.generation}`}${" "}
              <${Digest} value=${event.digest} />
              ${event.reason && html`<span class="reason"><${Reason} text=${event.reason} /></span>`}
            </span>
          </li>
        `,
      )}
    </ol>
  `;
}
