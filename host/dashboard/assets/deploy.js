// @ts-check
// What an operator changes in a slot: promote, roll back, reload, deploy.

import { html, useRef, useState } from "./vendor/preact.js";
import { request, withQuery } from "./api.js";
import { Confirmation } from "./dialog.js";
import { bytes, visible } from "./format.js";
import { Button, Digest, Foreign } from "./parts.js";

/** @typedef {import("../types").Slot} Slot */

/** What the next stage does. */
const NEXT = {
  shadow: "It then serves some of the new connections, as a canary, or everybody on probation if the slot has no canary.",
  canary: "It then serves everybody, on probation.",
  probation: "It then serves for good, and is no longer rolled back by itself.",
};

/**
 * Asks the gateway for a change of a slot, and returns the slot's new status.
 * @param {string} slot @param {string} verb @param {number} [generation]
 */
async function change(slot, verb, generation) {
  const response = await request("POST", withQuery(`/plugins/${encodeURIComponent(slot)}/${verb}`, { generation }));
  return /** @type {Promise<Slot>} */ (response.json());
}

/** Where the newest generation is now, in words. @param {Slot} slot */
function outcome({ candidate, live }) {
  const { generation, stage } = candidate ?? live;
  const words = { shadow: "in shadow", canary: "a canary", probation: "on probation", live: "live", kept: "kept" };
  return `Generation ${generation} is now ${words[stage]}.`;
}

/** What a deploy has done, in words. @param {string} slot @param {import("../types").Deployed} answer */
function deployed(slot, answer) {
  const sentences = [outcome(answer)];
  const others = (answer.slots ?? []).filter((name) => name !== slot);
  if (others.length > 0) sentences.push(`Also deployed to ${visible(others.join(", "))}.`);
  if (answer.replaced_link) sentences.push(`The symbolic link to ${visible(answer.replaced_link)} was replaced by the file.`);
  return sentences.join(" ");
}

/** @param {{ slot: Slot, done: (sentence: string) => void }} props */
export function SlotActions({ slot, done }) {
  const [asked, setAsked] = useState(/** @type {"promote" | "rollback" | "reload" | null} */ (null));
  const newest = slot.candidate ?? slot.live;
  // As long as a question is open, it is about the generation that it names, in its newest stage.
  const questioned = useRef(newest);
  const subject = [slot.candidate, slot.live, slot.previous].find((known) => known?.generation === questioned.current.generation);
  const ask = (/** @type {"promote" | "rollback" | "reload"} */ verb) => {
    questioned.current = newest;
    setAsked(verb);
  };
  const canPromote = slot.candidate !== null || slot.live.stage === "probation";
  const canRollBack = slot.candidate !== null || slot.previous !== null;
  return html`
    <div class="row">
      ${canPromote && html`<${Button} kind="primary" onClick=${() => ask("promote")}>Promote generation ${newest.generation} …<//>`}
      ${canRollBack && html`<${Button} kind="dangerous" onClick=${() => ask("rollback")}>Roll back generation ${newest.generation} …<//>`}
      <${Button} onClick=${() => ask("reload")}>Reload …<//>
    </div>
    ${asked && html`<${Question} verb=${asked} slot=${slot} subject=${subject ?? questioned.current} done=${done} close=${() => setAsked(null)} />`}
  `;
}

/**
 * @param {{
 *   verb: "promote" | "rollback" | "reload", slot: Slot, subject: import("../types").Generation,
 *   done: (sentence: string) => void, close: () => void,
 * }} props
 */
function Question({ verb, slot, subject, done, close }) {
  const { generation, stage, digest } = subject;
  const act = async () => done(outcome(await change(slot.slot, verb, verb === "reload" ? undefined : generation)));
  const name = visible(slot.slot);
  const which = html`
    <p>Generation <b>${generation}</b> of <b>${name}</b>, digest <${Digest} value=${digest} />, is now in the stage <b>${stage}</b>.</p>
  `;
  if (verb === "promote") {
    const title = `Promote generation ${generation}`;
    return html`
      <${Confirmation} title="${title}?" verb=${title} act=${act} onClose=${close}>
        ${which}<p>${NEXT[/** @type {"shadow"} */ (stage)]}</p>
      <//>
    `;
  }
  if (verb === "rollback") {
    const title = `Roll back generation ${generation}`;
    const isCandidate = slot.candidate?.generation === generation;
    const back = isCandidate ? slot.live.generation : slot.previous?.generation;
    return html`
      <${Confirmation} title="${title}?" verb=${title} isDangerous act=${act} onClose=${close}>
        ${which}
        <p>${isCandidate ? "It is given up" : "It stops serving"}, and generation <b>${back}</b> serves everybody. No connection is closed.</p>
        <p>The same file is not loaded again until it changes, or until you reload.</p>
      <//>
    `;
  }
  return html`
    <${Confirmation} title="Reload ${name}?" verb="Reload" act=${act} onClose=${close}>
      <p>The gateway reads <code><${Foreign} text=${slot.source} limit=${100} /></code> and its settings again, even if they were rolled back.</p>
      <p>If they pass the checks, they begin their stages.</p>
    <//>
  `;
}

/** Takes a component that is dropped or chosen. @param {{ slot: Slot, done: (sentence: string) => void }} props */
export function DropZone({ slot, done }) {
  const [file, setFile] = useState(/** @type {File | null} */ (null));
  const [isOver, setOver] = useState(false);
  const chooser = useRef(/** @type {any} */ (null));
  const name = visible(slot.slot);
  if (slot.source.startsWith("builtin:")) {
    const flag = slot.slot.startsWith("authenticator") ? "--authenticator" : "--router";
    return html`
      <p class="muted">
        This plugin is built in. To deploy here, start the gateway with a file for this slot:${" "}
        <code>${flag} FILE.wasm</code>, or <code>file = "FILE.wasm"</code> in its settings.
      </p>
    `;
  }
  const drop = (/** @type {DragEvent} */ event) => {
    event.preventDefault();
    setOver(false);
    setFile(event.dataTransfer?.files[0] ?? null);
  };
  const choose = (/** @type {any} */ event) => {
    setFile(event.target.files[0] ?? null);
    event.target.value = "";
  };
  const deploy = async () => {
    const response = await request("PUT", `/plugins/${encodeURIComponent(slot.slot)}`, { file: /** @type {File} */ (file) });
    done(deployed(slot.slot, await response.json()));
  };
  return html`
    <div class=${isOver ? "drop over" : "drop"} onDrop=${drop} onDragLeave=${() => setOver(false)}
      onDragOver=${(/** @type {Event} */ event) => (event.preventDefault(), setOver(true))}>
      <span>Drop a <code>.wasm</code> component here to deploy it to <b>${name}</b></span>
      <${Button} onClick=${() => chooser.current.click()} label="Choose a file to deploy to ${name}">Choose a file …<//>
      <input type="file" accept=".wasm,application/wasm" hidden ref=${chooser} onChange=${choose} aria-label="Component for ${name}" />
    </div>
    ${file && html`
      <${Confirmation} title="Deploy to ${name}?" verb="Deploy" act=${deploy} onClose=${() => setFile(null)}>
        <p><b><${Foreign} text=${file.name} /></b> (${bytes(file.size)}) replaces the file <code><${Foreign} text=${slot.source} limit=${100} /></code>.</p>
        <p>The gateway checks it first, which may take a minute. Meanwhile generation <b>${slot.live.generation}</b> goes on serving.</p>
      <//>
    `}
  `;
}
