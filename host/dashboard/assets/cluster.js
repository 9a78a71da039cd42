// @ts-check
// All gateways of the cluster.

import { html } from "./vendor/preact.js";
import { get } from "./api.js";
import { number, seconds, visible } from "./format.js";
import { usePolling } from "./hooks.js";
import { Badge, Digest, Empty, Figures, Panel, Table, Trouble } from "./parts.js";

/** @typedef {import("../types").Cluster} Cluster */
/** @typedef {import("../types").ClusterNode} ClusterNode */

const INTERVAL = 5000;
/** @type {Record<string, string>} */
const KINDS = { serving: "good", draining: "warning", joining: "trial" };

export function ClusterPanel() {
  const { data, at, problem } = usePolling((signal) => /** @type {Promise<Cluster>} */ (get("/cluster", signal)), INTERVAL, []);
  if (!data) return problem ? html`<${Trouble} problem=${problem} />` : html`<${Empty}>Asking all gateways …<//>`;
  const { connections, nats, nodes, warnings } = data;
  return html`
    <${Panel} title="Cluster" aside="${nodes.length} gateways, ${number(connections.open)} connections, NATS ${nats}">
      <${Figures} problem=${problem} at=${at}>
        ${warnings.length > 0 && html`<ul class="warnings">${warnings.map((warning) => html`<li>▲ ${visible(warning)}</li>`)}</ul>`}
        <${Table} caption="Gateways of the cluster" rows=${nodes} keyOf=${(/** @type {ClusterNode} */ node) => node.node} columns=${COLUMNS} />
      <//>
    <//>
  `;
}

/** @type {import("./parts.js").Column<ClusterNode>[]} */
const COLUMNS = [
  { title: "Gateway", cell: ({ node }) => node },
  { title: "State", isWide: true, cell: ({ state }) => html`<${Badge} kind=${KINDS[state] ?? "bad"}>${state}<//>` },
  { title: "Version", cell: ({ version }) => (version ? visible(version) : "–") },
  { title: "Running for", cell: ({ uptime_seconds: uptime }) => (uptime === undefined ? "–" : seconds(uptime)) },
  {
    title: "Connections",
    isNumber: true,
    cell: ({ connections }) => (connections ? `${number(connections.open)} of ${number(connections.limit)}` : "–"),
  },
  {
    title: "Plugins",
    isWide: true,
    cell: ({ plugins = [] }) => plugins.length > 0 && html`
      <ul class="plain">
        ${plugins.map(
          ({ slot, plugin, generation, stage, digest }) =>
            html`<li>${visible(slot)}: ${visible(plugin)} ${generation} ${stage} <${Digest} value=${digest} /></li>`,
        )}
      </ul>
    `,
  },
  { title: "Admin listener", isWide: true, cell: ({ admin = [] }) => admin.length > 0 && admin.map((address) => html`<code>${visible(address)}</code> `) },
];
