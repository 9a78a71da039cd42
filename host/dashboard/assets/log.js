// @ts-check
// The gateway's log: the last 1,000 lines, and what follows.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { clock, dateUnlessToday, number, visible } from "./format.js";
import { useBatches, useStream } from "./hooks.js";
import { Button, Empty, Foreign, Trouble } from "./parts.js";

/** @typedef {import("../types").LogLine} LogLine */

/** Lines that are kept. */
const KEPT = 1000;
/** Lines that are shown; more only when asked for. */
const SHOWN = 200;
const LEVELS = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];

/** @param {import("../types").Surroundings} props */
export function Log({ node }) {
  const lines = useRef(/** @type {(LogLine & { key: number })[]} */ ([]));
  const count = useRef(0);
  const [level, setLevel] = useState("DEBUG");
  const [word, setWord] = useState("");
  const [shown, setShown] = useState(SHOWN);
  // While paused: the last line that is shown.
  const [pausedAt, setPausedAt] = useState(/** @type {number | null} */ (null));
  const redraw = useBatches(100);
  const stream = useStream("/log", {}, {
    after: () => lines.current.at(-1)?.seq,
    onLine: (line) => {
      if (line.what === "lost") line = lostLines(line.lines, lines.current.at(-1)?.seq ?? 0);
      line.key = count.current++;
      // After a restart of the gateway the numbers begin again.
      if (line.seq < (lines.current.at(-1)?.seq ?? 0)) lines.current = [];
      lines.current.push(line);
      if (lines.current.length > KEPT) lines.current.splice(0, lines.current.length - KEPT);
      if (pausedAt === null) redraw();
    },
  });
  const trouble = html`<${Trouble} problem=${stream.problem} what="its log" />`;
  if (stream.what === "over" && lines.current.length === 0) return trouble;

  const newest = lines.current.at(-1)?.seq ?? 0;
  const until = pausedAt ?? newest;
  const matching = lines.current.filter((line) => line.seq <= until && isAtLeast(line, level) && contains(line, word));
  const isPaused = pausedAt !== null;
  return html`
    <form class="row tools" onSubmit=${(/** @type {Event} */ event) => event.preventDefault()}>
      <label>Level
        <select value=${level} onChange=${(/** @type {any} */ event) => setLevel(event.target.value)}>
          ${LEVELS.map((name) => html`<option value=${name}>${name === "ERROR" ? "only ERROR" : `${name} and above`}</option>`)}
        </select>
      </label>
      <label>Containing
        <input autocomplete="off" value=${word} onInput=${(/** @type {any} */ event) => setWord(event.target.value)} />
      </label>
      <span class="space"></span>
      <span class="live" role="status">${stream.what === "live" ? (isPaused ? "❚❚ Paused" : "● Live") : stream.what === "over" ? "○ Ended" : "… Connecting"}</span>
      <${Button} pressed=${isPaused} onClick=${() => setPausedAt(isPaused ? null : newest)}>${isPaused ? "Go on" : "Pause"}<//>
    </form>
    ${node !== "" && html`<p class="muted">This is the log of the gateway that serves this page.</p>`}
    ${trouble}
    ${matching.length === 0 && html`<${Empty}>${lines.current.length === 0 ? "The log has no line yet." : "No line has this level and these words."}<//>`}
    <${Lines} lines=${matching.slice(-shown)} isFollowing=${!isPaused} />
    <p class="row muted">
      ${number(Math.min(shown, matching.length))} of ${number(matching.length)} lines; the gateway keeps the last ${number(KEPT)}.
      ${matching.length > shown && html`<${Button} onClick=${() => setShown(shown + SHOWN)}>Show older lines<//>`}
    </p>
  `;
}

/** A line in the place of those that the gateway no longer had when it was asked for them. @param {number} count @param {number} seq @returns {LogLine} */
function lostLines(count, seq) {
  const message = `${count} ${count === 1 ? "line is" : "lines are"} no longer kept`;
  return { seq, at: new Date().toISOString(), level: "WARN", message, fields: {} };
}

/** @param {LogLine} line @param {string} level */
const isAtLeast = (line, level) => LEVELS.indexOf(line.level) <= LEVELS.indexOf(level);

/** @param {LogLine} line @param {string} word */
function contains(line, word) {
  return word === "" || `${line.message} ${JSON.stringify(line.fields)}`.toLowerCase().includes(word.toLowerCase());
}

/** @param {{ name: string, value: unknown }} props */
const Field = ({ name, value }) => html`<span class="field"><i>${visible(name)}=</i><${Foreign} text=${String(value)} limit=${200} /></span> `;

const SIGNS = { ERROR: "✕", WARN: "▲" };

/** @param {{ lines: (LogLine & { key: number })[], isFollowing: boolean }} props */
function Lines({ lines, isFollowing }) {
  const box = useRef(/** @type {any} */ (null));
  const isAtEnd = useRef(true);
  useEffect(() => {
    // Somebody who has scrolled up wants to read there.
    if (isFollowing && isAtEnd.current) box.current.scrollTop = box.current.scrollHeight;
  });
  const scrolled = (/** @type {any} */ event) => {
    const { scrollTop, scrollHeight, clientHeight } = event.currentTarget;
    isAtEnd.current = scrollHeight - scrollTop - clientHeight < 40;
  };
  return html`
    <div class="log" role="log" aria-label="Log lines" aria-live="off" tabindex="0" ref=${box} onScroll=${scrolled}>
      ${lines.map(
        ({ key, at, level, message, fields }) => html`
          <p key=${key} class=${level.toLowerCase()}>
            <time datetime=${at} title=${at}>${dateUnlessToday(at)}${clock(at)}</time>
            <b>${SIGNS[/** @type {"WARN"} */ (level)] ?? ""} ${level}</b>
            <span>
              <${Foreign} text=${message} limit=${600} />${" "}
              ${Object.entries(fields ?? {}).map(([name, value]) => html`<${Field} name=${name} value=${value} />`)}
            </span>
          </p>
        `,
      )}
    </div>
  `;
}
