// @ts-check
// Is the gateway well, what has changed, and who is refused?

import { html, useState } from "./vendor/preact.js";
import { HistoryCharts, Reasons } from "./overview-charts.js";
import { ClusterPanel } from "./cluster.js";
import { clock, number, rate, seconds, visible } from "./format.js";
import { Empty, Figures, Foreign, Panel, StageBadge, Table, Trouble, Usage, When } from "./parts.js";
import { FailureCount } from "./generations.js";
import { BUDGETS, EVENTS, inWords } from "./words.js";

/** @typedef {import("../types").Status} Status */
/** @typedef {import("../types").Surroundings & { history: import("./history.js").History }} Props */

/** A certificate that expires within this time is marked. The gateway warns, too. */
const SOON_DAYS = 14;
const LATEST_EVENTS = 8;

/** @param {Props} props */
export function Overview({ status, problem, at, node, history }) {
  if (node === "all") return html`<${ClusterPanel} />`;
  if (!status) return problem ? html`<${Trouble} problem=${problem} />` : html`<${Empty}>Asking the gateway …<//>`;
  return html`
    <${Figures} problem=${problem} at=${at}>
      <div class="first">
        <${Health} status=${status} problem=${problem} at=${at} />
        <${FindUser} />
      </div>
      <${Now} status=${status} />
      ${node === ""
        ? html`<${HistoryCharts} history=${history} />`
        : html`<p class="muted">Charts are of the gateway that serves this page: choose it above to see them.</p>`}
      <div class="columns">
        <div class="stack">
          <${Deciders} slots=${status.plugins} />
          ${node === "" && html`<${Reasons} history=${history} />`}
        </div>
        <div class="stack">
          <${Changes} slots=${status.plugins} />
          <${Budgets} status=${status} />
          <${Listeners} status=${status} />
        </div>
      </div>
      ${status.cluster && html`<${ClusterPanel} />`}
    <//>
  `;
}

/** @param {{ status: Status, problem: Error | null, at: number }} props */
function Health({ status, problem, at }) {
  const { warnings, state } = status;
  const isWell = warnings.length === 0 && state === "serving" && !problem;
  const sentence =
    problem ? `Nobody knows how the gateway is: it has told nothing since ${clock(new Date(at).toISOString())}.`
    : state !== "serving" ? "The gateway drains: it asks its clients to leave."
    : isWell ? "The gateway serves, and has nothing to warn about."
    : warnings.length === 1 ? "One thing needs your attention."
    : `${warnings.length} things need your attention.`;
  return html`
    <section class="health ${isWell ? "good" : "warning"}" aria-label="State">
      <p class="sentence"><span aria-hidden="true">${isWell ? "●" : problem ? "✕" : state === "serving" ? "▲" : "◆"}</span> ${sentence}</p>
      ${warnings.length > 0 && html`<ul>${warnings.map((warning) => html`<li><${Warning} text=${warning} slots=${status.plugins} /></li>`)}</ul>`}
    </section>
  `;
}

/** @param {{ text: string, slots: Status["plugins"] }} props */
function Warning({ text, slots }) {
  const slot = slots.find(({ slot }) => text.startsWith(`${slot}: `));
  return html`${visible(text)}${slot && html` <a href="#/plugins?slot=${encodeURIComponent(slot.slot)}">Look at ${visible(slot.slot)}</a>`}`;
}

function FindUser() {
  const [uid, setUid] = useState("");
  const open = (/** @type {string} */ page) => (location.hash = `#/${page}?uid=${encodeURIComponent(uid)}`);
  return html`
    <form class="find" onSubmit=${(/** @type {Event} */ event) => (event.preventDefault(), uid && open("trace"))}>
      <label for="complains">Does a user complain?</label>
      <div class="row">
        <input id="complains" placeholder="uid" autocomplete="off" value=${uid} onInput=${(/** @type {any} */ event) => setUid(event.target.value)} />
        <button type="submit" class="primary" disabled=${!uid}>Trace</button>
        <button type="button" disabled=${!uid} onClick=${() => open("connections")}>Connections</button>
      </div>
      <p class="muted">Trace shows live what happens to this user.</p>
    </form>
  `;
}

/** @param {{ status: Status }} props */
function Now({ status: { connections, per_second: perSecond, uptime_seconds: uptime } }) {
  const averaged = `average of ${seconds(Math.max(1, perSecond.seconds ?? 60))}`;
  /** @type {[string, string, string][]} */
  const figures = [
    ["Connections", number(connections.open), `of ${number(connections.limit)}`],
    ["Not logged in yet", number(connections.unauthenticated), `of ${number(connections.unauthenticated_limit)}`],
    ["Logins", rate(perSecond.logins ?? 0), averaged],
    ["Messages from clients", rate(perSecond.messages_received ?? 0), averaged],
    ["Messages to clients", rate(perSecond.messages_queued ?? 0), averaged],
    ["Pushes", rate(perSecond.pushes ?? 0), averaged],
    ["Running for", seconds(uptime), ""],
  ];
  return html`
    <dl class="figures-row">
      ${figures.map(([name, value, hint]) => html`<div><dt>${name}</dt><dd><b>${value}</b><span class="muted">${hint}</span></dd></div>`)}
    </dl>
  `;
}

/** Which generation decides, and which one fails. @param {{ slots: Status["plugins"] }} props */
function Deciders({ slots }) {
  const rows = slots.flatMap((slot) =>
    [slot.candidate, slot.live].filter((generation) => generation !== null).map((generation) => ({ slot, generation })),
  );
  return html`
    <${Panel} title="Who decides" aside=${html`<a href="#/plugins">All plugins</a>`}>
      <${Table} caption="Generations that decide" rows=${rows} keyOf=${(/** @type {any} */ row) => `${row.slot.slot} ${row.generation.generation}`}
        columns=${/** @type {import("./parts.js").Column<typeof rows[0]>[]} */ ([
          { title: "Slot", isWide: true, cell: ({ slot }) => html`<a href="#/plugins?slot=${encodeURIComponent(slot.slot)}">${visible(slot.slot)}</a>` },
          { title: "Plugin", isWide: true, cell: ({ slot }) => html`<${Foreign} text=${slot.plugin} limit=${30} />` },
          { title: "Generation", isWide: true, cell: ({ generation }) => html`<span class="row tight">${generation.generation} <${StageBadge} stage=${generation.stage} /></span>` },
          { title: "Since", isWide: true, cell: ({ generation }) => html`<${When} at=${generation.since} />` },
          { title: "Calls", isNumber: true, cell: ({ generation }) => number(generation.calls) },
          { title: "Failed", isNumber: true, cell: ({ generation }) => html`<${FailureCount} counted=${generation} />` },
        ])} />
    <//>
  `;
}

/** The latest events of all slots: what changed before it went wrong? @param {{ slots: Status["plugins"] }} props */
function Changes({ slots }) {
  const events = slots
    .flatMap(({ slot, history }) => history.map((event) => ({ slot, ...event })))
    .sort((one, other) => other.at.localeCompare(one.at))
    .slice(0, LATEST_EVENTS);
  return html`
    <${Panel} title="What changed last">
      ${events.length === 0 && html`<${Empty}>No plugin has changed since the gateway started.<//>`}
      <ol class="events">
        ${events.map(
          (event) => html`
            <li class="is-${event.what}">
              <${When} at=${event.at} />
              <span><b>${visible(event.slot)}</b> ${event.generation !== null && `generation ${event.generation}`} ${inWords(EVENTS, event.what) || event.what}
                ${event.reason && html`<span class="reason"><${Foreign} text=${event.reason} limit=${160} /></span>`}</span>
            </li>
          `,
        )}
      </ol>
    <//>
  `;
}

/** @param {{ status: Status }} props */
function Budgets({ status: { budgets, connections } }) {
  return html`
    <${Panel} title="Limits">
      <${Usage} label="limits.connections" hint="open connections" used=${connections.open} limit=${connections.limit} />
      <${Usage} label="limits.unauthenticated" hint="not logged in yet" used=${connections.unauthenticated} limit=${connections.unauthenticated_limit} />
      ${budgets.map(
        ({ setting, used_bytes: used, limit_bytes: limit }) =>
          html`<${Usage} label=${setting} hint=${inWords(BUDGETS, setting)} used=${used} limit=${limit} unit="bytes" />`,
      )}
    <//>
  `;
}

/** @param {{ status: Status }} props */
function Listeners({ status: { listeners, certificates } }) {
  return html`
    <${Panel} title="Listeners and certificates">
      <ul class="plain">
        ${listeners.map(
          ({ listener, address, tls }) =>
            html`<li><b>${listener}</b> <code>${visible(address)}</code> <span class="muted">${tls ? "TLS" : "no TLS"}</span></li>`,
        )}
      </ul>
      ${certificates.length === 0 && html`<${Empty}>No listener has a certificate.<//>`}
      <ul class="plain">${certificates.map((certificate) => html`<li><${Certificate} ...${certificate} /></li>`)}</ul>
    <//>
  `;
}

/** @param {Status["certificates"][0]} props */
function Certificate({ listener, file, names, expires }) {
  const days = Math.floor((Date.parse(expires) - Date.now()) / 86_400_000);
  return html`
    <b>${listener}</b> certificate for <${Foreign} text=${names.join(", ") || "no name"} />:${" "}
    <span class=${days < SOON_DAYS ? "failing" : ""} title=${expires}>${days < 0 ? "expired" : `expires in ${days} days`}</span>
    <div><code class="muted">${visible(file)}</code></div>
  `;
}
