// @ts-check
// What happens to one user, live: each decision of a plugin, each message.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { withQuery } from "./api.js";
import { useBatches, useStream } from "./hooks.js";
import { Button, Empty, Foreign, Trouble } from "./parts.js";
import { TraceTable, isFailure } from "./trace-lines.js";

/** @typedef {import("../types").TraceLine} TraceLine */

/** Lines that are kept and shown. */
const KEPT = 300;

const NOTHING_YET = "Nothing has happened yet. Lines appear as soon as the client logs in, sends something or gets a message.";

/** @param {import("../types").Surroundings} props */
export function Trace({ query, node }) {
  const uid = query.get("uid") ?? "";
  const connection = query.get("connection") ?? "";
  const [typed, setTyped] = useState(uid);
  useEffect(() => setTyped(uid), [uid]);
  const isChosen = uid !== "" || connection !== "";
  const start = (/** @type {Event} */ event) => {
    event.preventDefault();
    location.hash = withQuery("#/trace", { uid: typed });
  };
  return html`
    <form class="row tools" onSubmit=${start}>
      <label for="traced">uid</label>
      <input id="traced" autocomplete="off" value=${typed} onInput=${(/** @type {any} */ event) => setTyped(event.target.value)} />
      <button type="submit" class="primary" disabled=${typed === ""}>${uid !== "" && typed === uid ? "Tracing" : "Trace"}</button>
      ${isChosen && html`<a class="button" href="#/trace">Stop</a>`}
    </form>
    ${node !== "" && html`<p class="muted">A trace shows clients of the gateway that serves this page.</p>`}
    ${!isChosen && html`
      <${Empty}>Name a uid. You then see live which plugin decided what about it, how long that took, and which messages it got.<//>
      <${Empty}>A client need not be connected yet.<//>
    `}
    ${isChosen && html`<${Live} key=${`${uid} ${connection}`} uid=${uid} connection=${connection} />`}
  `;
}

/** @param {{ uid: string, connection: string }} props */
function Live({ uid, connection }) {
  const lines = useRef(/** @type {(TraceLine & { key: number })[]} */ ([]));
  const count = useRef(0);
  const [isPaused, setPaused] = useState(false);
  const [onlyFailures, setOnlyFailures] = useState(false);
  const redraw = useBatches(100);
  const stream = useStream("/trace", uid ? { uid } : { connection }, {
    whileHidden: true,
    onLine: (line) => {
      if (isPaused) return;
      lines.current.push({ ...line, key: count.current++ });
      if (lines.current.length > KEPT) lines.current.splice(0, lines.current.length - KEPT);
      redraw();
    },
  });
  if (stream.what === "missing") return html`<${Trouble} problem=${stream.problem} what="traces" />`;
  const shown = onlyFailures ? lines.current.filter(isFailure) : lines.current;
  return html`
    <div class="row tools">
      <span class="live" role="status">
        ${stream.what === "live" ? (isPaused ? "❚❚ Paused" : "● Live") : "… Connecting"}: <b><${Foreign} text=${uid || `connection ${connection}`} /></b>
      </span>
      <span class="space"></span>
      <${Button} pressed=${onlyFailures} onClick=${() => setOnlyFailures(!onlyFailures)}>Only failures<//>
      <${Button} pressed=${isPaused} onClick=${() => setPaused(!isPaused)}>${isPaused ? "Go on" : "Pause"}<//>
      <${Button} onClick=${() => ((lines.current = []), redraw())}>Clear<//>
    </div>
    ${stream.what === "waiting" && html`<${Trouble} problem=${stream.problem} />`}
    ${shown.length === 0
      ? html`<${Empty}>${onlyFailures ? "Nothing has failed." : NOTHING_YET}<//>`
      : html`<div class="framed"><${TraceTable} lines=${shown.toReversed()} /></div>`}
    ${lines.current.length === KEPT && html`<p class="muted">Older lines are forgotten: the last ${KEPT} are kept.</p>`}
  `;
}
