// @ts-check
// The last 15 minutes of the gateway: charts, and the reasons of refused and ended connections.

import { html } from "./vendor/preact.js";
import { Chart } from "./charts.js";
import { number, rate } from "./format.js";
import { sum } from "./history.js";
import { useBatches, useStream } from "./hooks.js";
import { Empty, Panel, Trouble } from "./parts.js";
import { CAUSES, DENIALS, inWords } from "./words.js";

/** @typedef {import("./history.js").History} History */

/** @param {{ history: History }} props */
export function HistoryCharts({ history }) {
  const redraw = useBatches(250);
  const stream = useStream("/events", {}, {
    after: () => history.newest?.seq,
    onLine: (sample) => {
      history.add(sample);
      redraw();
    },
  });
  const times = history.times();
  const trouble = html`<${Trouble} problem=${stream.problem} what="charts of the last 15 minutes" />`;
  if (times.length === 0) return stream.problem ? trouble : html`<${Empty}>The charts begin as soon as there are two samples.<//>`;
  return html`
    ${trouble}
    ${stream.problem && stream.what !== "over" && html`<p class="muted">▲ The charts have stopped, and go on when the gateway answers.</p>`}
    <div class="charts">
      <${Chart} title="Connections" times=${times} format=${number} lines=${[
        { name: "open", values: history.values((sample) => sample.connections) },
        { name: "logging in", values: history.values((sample) => sample.unauthenticated) },
      ]} />
      <${Chart} title="Logins" times=${times} format=${rate} lines=${[
        { name: "accepted", values: history.rates((sample) => sample.logins) },
        { name: "denied", values: history.rates((sample) => sum(sample.denials)) },
      ]} />
      <${Chart} title="Messages" times=${times} format=${rate} lines=${[
        { name: "from clients", values: history.rates((sample) => sample.messages) },
      ]} />
      <${Chart} title="Pushes" times=${times} format=${rate} lines=${[
        { name: "all", values: history.rates((sample) => sample.pushes) },
        { name: "failed", values: history.rates((sample) => sample.pushes_failed) },
      ]} />
    </div>
  `;
}

/** @param {{ history: History }} props */
export function Reasons({ history }) {
  if (history.isEmpty) return null;
  return html`
    <${Panel} title="Refused and ended" aside="last 15 minutes">
      <h3>Logins denied</h3>
      <${Counts} counts=${history.growth("denials")} words=${DENIALS} none="No login was denied." />
      <h3>Connections ended</h3>
      <${Counts} counts=${history.growth("closed")} words=${CAUSES} none="No connection has ended." />
    <//>
  `;
}

/** @param {{ counts: [string, number][], words: Record<string, string>, none: string }} props */
function Counts({ counts, words, none }) {
  if (counts.length === 0) return html`<${Empty}>${none}<//>`;
  const most = counts[0][1];
  return html`
    <ul class="counts">
      ${counts.map(
        ([name, count]) => html`
          <li><b>${number(count)}</b> <meter min="0" max=${most} value=${count} aria-label=${name}></meter>
            <span><code>${name}</code> ${inWords(words, name)}</span></li>
        `,
      )}
    </ul>
  `;
}
