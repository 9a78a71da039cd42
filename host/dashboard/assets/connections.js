// @ts-check
// Who is connected, who reads too slowly, and closing connections.

import { html, useEffect, useState } from "./vendor/preact.js";
import { get, request, withQuery } from "./api.js";
import { Confirmation } from "./dialog.js";
import { bytes, number, visible } from "./format.js";
import { usePolling } from "./hooks.js";
import { Button, Empty, Figures, Foreign, Incomplete, Table, Trouble, When } from "./parts.js";

/** @typedef {import("../types").Connection} Connection */
/** @typedef {import("../types").ConnectionList} ConnectionList */

/** Rows on a page. */
const PAGE = 100;

/** @param {import("../types").Surroundings} props */
export function Connections({ node, own, query, readOnly }) {
  const uid = query.get("uid") ?? "";
  const isSlowest = query.get("sort") === "outbox";
  const [kicked, setKicked] = useState(/** @type {Connection | "uid" | null} */ (null));
  // What is shown of a list; another list begins at its first page. `pages`: the `after` of this page and of all before it.
  const first = { list: `${node} ${query}`, pages: [""], said: "" };
  const [view, setView] = useState(first);
  const { pages, said } = view.list === first.list ? view : first;
  const setPages = (/** @type {string[]} */ pages) => setView({ ...first, pages });
  const setSaid = (/** @type {string} */ said) => setView({ ...first, pages, said });
  const after = pages.at(-1) ?? "";
  const path = withQuery("/connections", isSlowest ? { sort: "outbox", limit: PAGE, node } : { uid, after, limit: PAGE, node });
  const { data, at, problem, refresh } = usePolling((signal) => /** @type {Promise<ConnectionList>} */ (get(path, signal)), 0, [path]);

  const open = (/** @type {Record<string, string>} */ parameters) => {
    setPages([""]);
    location.hash = withQuery("#/connections", parameters);
  };
  const closed = (/** @type {boolean} */ done) => {
    setKicked(null);
    if (done) refresh();
  };
  return html`
    <${Search} uid=${uid} isSlowest=${isSlowest} open=${open} refresh=${refresh} />
    ${!data && html`<${Trouble} problem=${problem} what=${isSlowest ? "the list of the slowest connections" : undefined} />`}
    <p class="said" role="status">${said}</p>
    ${!data && !problem && html`<${Empty}>Asking the gateway …<//>`}
    ${data && html`
      <${Figures} problem=${problem} at=${at}>
        <${Incomplete} missing=${data.missing} complete=${data.complete} />
        ${data.connections.length === 0 && html`<${Nobody} uid=${uid} list=${data} node=${node} />`}
        ${data.connections.length > 0 && html`
          ${uid && !readOnly && html`<p><${Button} kind="dangerous" onClick=${() => setKicked("uid")}>Close all connections of this uid …<//></p>`}
          ${!isSlowest && html`<div class="only-narrow"><${Paging} pages=${pages} setPages=${setPages} list=${data} /></div>`}
          <div class="framed"><${Table} caption="Connections" rows=${data.connections} keyOf=${idOf} columns=${columns(own, readOnly ? null : setKicked)} /></div>
        `}
        ${!isSlowest && html`<${Paging} pages=${pages} setPages=${setPages} list=${data} />`}
      <//>
    `}
    ${kicked && html`<${Kick} target=${kicked} uid=${uid} isCluster=${own !== null} say=${setSaid} onClose=${closed} />`}
  `;
}

const idOf = (/** @type {Connection} */ row) => row.id;

/** @param {{ uid: string, list: ConnectionList, node: string }} props */
function Nobody({ uid, list: { complete }, node }) {
  const isOne = node !== "" && node !== "all";
  const where = complete === false ? " to the gateways that answered" : isOne ? ` to gateway ${node}` : "";
  return html`<${Empty}>${uid ? html`<b><${Foreign} text=${uid} /></b> is` : "Nobody is"}${uid && " not"} connected${where}.<//>`;
}

/** @param {{ uid: string, isSlowest: boolean, open: (parameters: Record<string, string>) => void, refresh: () => void }} props */
function Search({ uid, isSlowest, open, refresh }) {
  const [typed, setTyped] = useState(uid);
  useEffect(() => setTyped(uid), [uid]);
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    open({ uid: typed });
    // The same uid again is no other address.
    refresh();
  };
  return html`
    <form class="row tools" role="search" onSubmit=${submit}>
      <label for="uid">Exact uid</label>
      <input id="uid" autocomplete="off" value=${typed} onInput=${(/** @type {any} */ event) => setTyped(event.target.value)} />
      <button type="submit" class="primary">Search</button>
      <span class="space"></span>
      <${Button} onClick=${() => open({})} pressed=${!isSlowest && uid === ""}>Everybody<//>
      <${Button} onClick=${() => open({ sort: "outbox" })} pressed=${isSlowest}>Fullest outboxes first<//>
      <${Button} onClick=${refresh}>Refresh<//>
    </form>
  `;
}

/**
 * @param {number | null} own the gateway that serves the page
 * @param {((row: Connection) => void) | null} kick
 * @returns {import("./parts.js").Column<Connection>[]}
 */
function columns(own, kick) {
  return [
    { title: "uid", isWide: true, cell: ({ uid }) => html`<b><${Foreign} text=${uid} limit=${48} /></b>` },
    { title: "Address", isWide: true, cell: ({ address }) => html`<code>${address}</code>` },
    { title: "Since", isWide: true, cell: ({ since }) => html`<${When} at=${since} />` },
    { title: "Groups", isNumber: true, cell: ({ groups }) => number(groups) },
    { title: "Outbox", isNumber: true, cell: (row) => bytes(row.outbox_bytes) },
    { title: "Id", isWide: true, cell: ({ id, node }) => html`<code>${id}</code>${node !== undefined && html` <span class="muted">gateway ${node}</span>`}` },
    {
      title: "Actions",
      isWide: true,
      cell: (row) => html`
        <span class="row tight">
          ${own !== null && row.node !== undefined && row.node !== own
            ? html`<span class="muted">on gateway ${row.node}</span>`
            : html`<a class="button" href=${withQuery("#/trace", { uid: row.uid })} aria-label="Trace uid ${visible(row.uid.slice(0, 48))}">Trace</a>`}
          ${kick && html`<${Button} onClick=${() => kick(row)} label="Close connection ${row.id}">Close …<//>`}
        </span>
      `,
    },
  ];
}

/** @param {{ pages: string[], setPages: (pages: string[]) => void, list: ConnectionList }} props */
function Paging({ pages, setPages, list: { next, connections } }) {
  const shown = connections.length;
  if (shown === 0 && pages.length === 1) return null;
  if (pages.length === 1 && !next) return html`<p class="muted">${number(shown)} ${shown === 1 ? "connection" : "connections"}</p>`;
  return html`
    <div class="row paging">
      <${Button} disabled=${pages.length === 1} onClick=${() => setPages(pages.slice(0, -1))}>Previous page<//>
      <span>Page ${number(pages.length)}, ${number(shown)} connections</span>
      <${Button} disabled=${!next} onClick=${() => next && setPages([...pages, next])}>Next page<//>
    </div>
  `;
}

/** @param {{ target: Connection | "uid", uid: string, isCluster: boolean, say: (sentence: string) => void, onClose: (done: boolean) => void }} props */
function Kick({ target, uid, isCluster, say, onClose }) {
  const isAll = target === "uid";
  const act = async () => {
    const path = isAll ? withQuery("/connections", { uid }) : `/connections/${encodeURIComponent(target.id)}`;
    const { closed } = await (await request("DELETE", path)).json();
    say(`${number(closed)} ${closed === 1 ? "connection was" : "connections were"} closed.`);
  };
  return html`
    <${Confirmation} title=${isAll ? "Close all connections of this uid?" : "Close this connection?"} verb="Close" isDangerous act=${act} onClose=${onClose}>
      <p><b><${Foreign} text=${isAll ? uid : target.uid} /></b>${!isAll && html`, connection <code>${target.id}</code> from <code>${target.address}</code>`}</p>
      ${isAll && isCluster && html`<p>They are closed on <b>all gateways</b> of the cluster, also those that are not shown.</p>`}
      <p>The client gets the close code 4907 (an operator closed it). It may connect again at once.</p>
    <//>
  `;
}
