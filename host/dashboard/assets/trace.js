// @ts-check
// What happens to one user, live: each decision of a plugin, each message.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { withQuery } from "./api.js";
import { number } from "./format.js";
import { useBatches, useStream } from "./hooks.js";
import { Button, Empty, Foreign, Trouble } from "./parts.js";
import { TraceTable, isFailure } from "./trace-lines.js";

/** @typedef {import("../types").TraceLine} TraceLine */

/** Lines that are kept and shown. */
const KEPT = 300;

const NOTHING_YET = "Nothing has happened yet. Lines appear as soon as the client logs in, sends something or gets a message.";

/** How a client is named: the name in the query, and in words. @type {[string, string][]} */
const NAMES = [
  ["uid", "uid"],
  ["connection", "connection number"],
  ["address", "IP address"],
];

/** @param {import("../types").Surroundings} props */
export function Trace({ query, own }) {
  const [by, name] = NAMES.map(([by]) => [by, query.get(by) ?? ""]).find(([, name]) => name !== "") ?? ["uid", ""];
  const [typed, setTyped] = useState({ by, name });
  useEffect(() => setTyped({ by, name }), [by, name]);
  const isChosen = name !== "";
  const isTraced = isChosen && typed.by === by && typed.name === name;
  const start = (/** @type {Event} */ event) => {
    event.preventDefault();
    // White space may be a part of a uid, but not of the others.
    location.hash = withQuery("#/trace", { [typed.by]: typed.by === "uid" ? typed.name : typed.name.trim() });
  };
  const change = (/** @type {Partial<typeof typed>} */ part) => setTyped({ ...typed, ...part });
  return html`
    <form class="row tools" onSubmit=${start}>
      <select aria-label="Find the client by" value=${typed.by} onChange=${(/** @type {any} */ event) => change({ by: event.target.value })}>
        ${NAMES.map(([by, words]) => html`<option value=${by}>${words}</option>`)}
      </select>
      <input id="traced" aria-label="Client to trace" autocomplete="off" value=${typed.name} onInput=${(/** @type {any} */ event) => change({ name: event.target.value })} />
      <button type="submit" class="primary" disabled=${typed.name === ""}>${isTraced ? "Tracing" : "Trace"}</button>
      ${isChosen && html`<a class="button" href="#/trace">Stop</a>`}
    </form>
    ${own !== null && html`<p class="muted">A trace shows only clients of the gateway that serves this page: gateway ${own}.</p>`}
    ${!isChosen && html`
      <${Empty}>Name a client. You then see live which plugin decided what about it, how long that took, and which messages it got.<//>
      <${Empty}>A uid need not be connected yet. A client that cannot log in has no uid: find it by its IP address.<//>
    `}
    ${isChosen && html`<${Live} key=${`${by} ${name}`} by=${by} name=${name} />`}
  `;
}

/** @param {{ by: string, name: string }} props */
function Live({ by, name }) {
  const lines = useRef(/** @type {(TraceLine & { key: number })[]} */ ([]));
  const count = useRef(0);
  // While paused: the lines at that time. Newer ones are kept until somebody goes on.
  const [frozen, setFrozen] = useState(/** @type {typeof lines.current | null} */ (null));
  const frozenAt = useRef(0);
  const [onlyFailures, setOnlyFailures] = useState(false);
  const redraw = useBatches(100);
  const stream = useStream("/trace", { [by]: name }, {
    whileHidden: true,
    onLine: (line) => {
      lines.current.push({ ...line, key: count.current++ });
      if (lines.current.length > KEPT) lines.current.splice(0, lines.current.length - KEPT);
      redraw();
    },
  });
  const trouble = html`<${Trouble} problem=${stream.problem} what="traces" />`;
  if (stream.what === "over" && lines.current.length === 0) return trouble;
  const isPaused = frozen !== null;
  const known = frozen ?? lines.current;
  const shown = onlyFailures ? known.filter(isFailure) : known;
  const newer = isPaused ? count.current - frozenAt.current : 0;
  const pause = () => {
    frozenAt.current = count.current;
    setFrozen(isPaused ? null : [...lines.current]);
  };
  const clear = () => {
    lines.current = [];
    frozenAt.current = count.current;
    setFrozen(isPaused ? [] : null);
    redraw();
  };
  return html`
    <div class="row tools">
      <span class="live" role="status">
        ${stream.what === "live" ? (isPaused ? "❚❚ Paused" : "● Live") : stream.what === "over" ? "○ Ended" : "… Connecting"}: <b><${Foreign} text=${by === "uid" ? name : `${by} ${name}`} /></b>
      </span>
      ${newer > 0 && html`<span class="muted">${number(newer)} newer ${newer === 1 ? "line" : "lines"}</span>`}
      <span class="space"></span>
      <${Button} pressed=${onlyFailures} onClick=${() => setOnlyFailures(!onlyFailures)}>Only failures<//>
      <${Button} pressed=${isPaused} onClick=${pause}>${isPaused ? "Go on" : "Pause"}<//>
      <${Button} onClick=${clear}>Clear<//>
    </div>
    ${trouble}
    ${shown.length === 0
      ? html`<${Empty}>${onlyFailures ? "Nothing has failed." : NOTHING_YET}<//>`
      : html`<div class="framed"><${TraceTable} lines=${shown.toReversed()} /></div>`}
    ${lines.current.length === KEPT && html`<p class="muted">Older lines are forgotten: the last ${KEPT} are kept.</p>`}
  `;
}
