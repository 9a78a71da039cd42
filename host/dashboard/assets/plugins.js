// @ts-check
// All slots with their plugins.

import { html, useEffect } from "./vendor/preact.js";
import { get } from "./api.js";
import { visible } from "./format.js";
import { usePolling } from "./hooks.js";
import { Empty, Figures, Incomplete, Trouble } from "./parts.js";
import { SlotPanel } from "./slot.js";

/** @typedef {import("../types").Slot} Slot */

const INTERVAL = 5000;

/** @param {import("../types").Surroundings} props */
export function Plugins({ status, problem, at, refresh, node, query, readOnly }) {
  const wanted = query.get("slot");
  useEffect(() => {
    if (wanted && status) document.getElementById(`slot-${wanted}`)?.scrollIntoView({ block: "start" });
  }, [wanted, status === null]);

  if (node === "all") return html`<${AllGateways} />`;
  if (!status) return problem ? html`<${Trouble} problem=${problem} />` : html`<${Empty}>Asking the gateway …<//>`;
  return html`
    <${Figures} problem=${problem} at=${at}>
      ${node !== "" && html`<${Elsewhere} node=${node} />`}
      ${readOnly && html`<p class="muted">This session only reads: log in with <code>hotgate dashboard</code> to deploy, promote and roll back.</p>`}
      ${status.plugins.map((slot) => html`<${SlotPanel} key=${slot.slot} slot=${slot} refresh=${refresh} canChange=${!readOnly && node === ""} />`)}
    <//>
  `;
}

/** @param {{ node: string | number }} props */
const Elsewhere = ({ node }) =>
  html`<p class="muted">This is gateway ${node}. To change its plugins, open its own dashboard, or type <code>hotgate cluster deploy</code> to deploy to all.</p>`;

function AllGateways() {
  const load = (/** @type {AbortSignal} */ signal) =>
    /** @type {Promise<{ nodes: { node: number, plugins: Slot[] }[], missing: number[], complete?: boolean }>} */ (get("/plugins?node=all", signal));
  const { data, at, problem } = usePolling(load, INTERVAL, []);
  if (!data) return problem ? html`<${Trouble} problem=${problem} />` : html`<${Empty}>Asking all gateways …<//>`;
  return html`
    <${Figures} problem=${problem} at=${at}>
      <${Incomplete} missing=${data.missing} complete=${data.complete} />
      <p class="muted">Only the plugins of the gateway that serves this page can be changed here.</p>
      ${data.nodes.map(
        ({ node, plugins }) => html`
          <h2 class="gateway-name">Gateway ${visible(String(node))}</h2>
          ${plugins.map((slot) => html`<${SlotPanel} key=${`${node} ${slot.slot}`} slot=${slot} canChange=${false} />`)}
        `,
      )}
    <//>
  `;
}
