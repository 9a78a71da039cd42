// @ts-check
// The frame around the pages: what the gateway is doing, the navigation, the choice of a gateway.

import { html, useEffect, useErrorBoundary, useMemo, useRef, useState } from "./vendor/preact.js";
import { get, logOut, withQuery } from "./api.js";
import { visible } from "./format.js";
import { History } from "./history.js";
import { usePolling } from "./hooks.js";
import { clearNotices, currentNotices, onNotice } from "./notices.js";
import { Overview } from "./overview.js";
import { Button, Trouble, Wrong } from "./parts.js";
import { isDark, onTheme, toggleTheme } from "./theme.js";
import { TryClient } from "./try-client.js";

/** @typedef {import("../types").Status} Status */

/** When the modules of all pages are loaded: they should be there even if the gateway does not answer later. */
const LOAD_ALL_AFTER = 1000;
/** How often the gateway is asked how it is, while somebody looks. */
const STATUS_INTERVAL = 3000;

/**
 * The pages. Their modules are loaded when they are first shown, so that the overview is there at once.
 * @type {Record<string, { title: string, load: () => Promise<(props: any) => unknown> }>}
 */
const PAGES = {
  overview: { title: "Overview", load: async () => Overview },
  plugins: { title: "Plugins", load: async () => (await import("./plugins.js")).Plugins },
  connections: { title: "Connections", load: async () => (await import("./connections.js")).Connections },
  trace: { title: "Trace", load: async () => (await import("./trace.js")).Trace },
  log: { title: "Log", load: async () => (await import("./log.js")).Log },
  try: { title: "Try it", load: async () => (await import("./try.js")).TryIt },
};

/** The page that the address names, and what follows after its name. */
function useRoute() {
  const read = () => location.hash.slice(1);
  const [hash, setHash] = useState(read);
  useEffect(() => {
    const changed = () => setHash(read());
    // The address may have changed since the first drawing.
    changed();
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  const [, name, query] = /^\/?([^?]*)\??(.*)$/.exec(hash) ?? [];
  return { name: Object.hasOwn(PAGES, name) ? name : "overview", query: new URLSearchParams(query) };
}

/** @param {{ session: import("../types").Session }} props */
export function Dashboard({ session }) {
  const { name, query } = useRoute();
  const [node, setNode] = useState("");
  const about = node === "all" ? "" : node;
  const { data: status, at, problem, refresh } = usePolling(
    (signal) => /** @type {Promise<Status>} */ (get(withQuery("/status", { node: about }), signal)),
    STATUS_INTERVAL,
    [about],
  );
  // The number of the gateway that serves the page; the status of another gateway names that one.
  const cluster = useRef(/** @type {Status["cluster"]} */ (undefined));
  if (about === "" && status) cluster.current = status.cluster;
  // These outlive a change of the page.
  const history = useMemo(() => new History(), []);
  const tryClient = useMemo(() => new TryClient(), []);
  useEffect(() => () => tryClient.leave(), []);

  useEffect(() => {
    const timer = setTimeout(() => Object.values(PAGES).forEach(({ load }) => load().catch(() => {})), LOAD_ALL_AFTER);
    return () => clearTimeout(timer);
  }, []);

  const { title, load } = PAGES[name];
  const heading = useRef(/** @type {any} */ (null));
  const isFirst = useRef(true);
  useEffect(() => {
    document.title = `${title} – Hotgate`;
    // Tells screen readers that there is another page.
    if (!isFirst.current) heading.current.focus();
    isFirst.current = false;
  }, [name]);

  const around = { status, problem, at, refresh, node, own: cluster.current?.node ?? null, query, readOnly: session.readOnly, history, tryClient };
  return html`
    <a class="skip" href="#content" onClick=${(/** @type {Event} */ event) => (event.preventDefault(), heading.current.focus())}>Skip to the content</a>
    <${TopBar} status=${status} problem=${problem} cluster=${cluster.current} node=${node} setNode=${setNode} readOnly=${session.readOnly} />
    <nav aria-label="Pages">
      ${Object.entries(PAGES).map(
        ([key, { title }]) => html`<a href="#/${key}" aria-current=${key === name ? "page" : undefined}>${title}</a>`,
      )}
    </nav>
    <main id="content" class="page-${name}">
      <h1 ref=${heading} tabindex="-1">${title}</h1>
      <${Notices} />
      <${Fence} key=${name}><${Page} load=${load} around=${around} /><//>
    </main>
  `;
}

/** What must be said on whatever page is shown. */
function Notices() {
  const [notices, setNotices] = useState(currentNotices);
  useEffect(() => onNotice(() => setNotices(currentNotices())), []);
  if (notices.length === 0) return null;
  return html`
    <div class="notices" role="alert">
      ${notices.map((sentence) => html`<${Wrong}>${visible(sentence)}<//>`)}
      <${Button} onClick=${clearNotices}>I have read this<//>
    </div>
  `;
}

/** Shows a defect of a page in words, and leaves the other pages usable. @param {{ children?: unknown }} props */
function Fence({ children }) {
  const [defect] = useErrorBoundary();
  if (defect) return html`<${Trouble} problem=${new Error(`This page has a defect: ${defect}`)} />`;
  return children;
}

/** @param {{ load: () => Promise<(props: any) => unknown>, around: object }} props */
function Page({ load, around }) {
  const [page, setPage] = useState(/** @type {{ component?: unknown, problem?: Error }} */ ({}));
  useEffect(() => {
    load().then(
      (component) => setPage({ component }),
      () => setPage({ problem: new Error("This page cannot be loaded: the gateway does not answer. Reload it when the gateway is back.") }),
    );
  }, []);
  if (page.problem) return html`<${Trouble} problem=${page.problem} />`;
  return page.component ? html`<${page.component} ...${around} />` : null;
}

/**
 * @param {{
 *   status: Status | null, problem: Error | null, cluster: Status["cluster"],
 *   node: string, setNode: (node: string) => void, readOnly: boolean,
 * }} props
 */
function TopBar({ status, problem, cluster, node, setNode, readOnly }) {
  const [dark, setDark] = useState(isDark);
  useEffect(() => onTheme(() => setDark(isDark())), []);
  return html`
    <header class="top">
      <a class="brand" href="#/overview"><img src="/assets/icon.svg" alt="" width="22" height="22" /> Hotgate</a>
      <${State} status=${status} problem=${problem} />
      ${status && html`<span class="muted version" title="commit ${visible(status.commit)}">version ${visible(status.version)}</span>`}
      <span class="space"></span>
      <${NodeChoice} cluster=${cluster} node=${node} setNode=${setNode} />
      ${readOnly && html`<span class="badge quiet" title="This session can look at everything and change nothing.">read-only</span>`}
      <${Button} kind="plain" onClick=${toggleTheme}>${dark ? "Light" : "Dark"}<//>
      <${Button} kind="plain" onClick=${logOut}>Log out<//>
    </header>
  `;
}

/** @param {{ status: Status | null, problem: Error | null }} props */
function State({ status, problem }) {
  if (problem) return html`<span class="badge bad" role="status">✕ no answer</span>`;
  if (!status) return html`<span class="badge quiet" role="status">… asking</span>`;
  if (status.state !== "serving") return html`<span class="badge warning" role="status">◆ ${status.state}</span>`;
  const count = status.warnings.length;
  if (count > 0) return html`<span role="status"><a class="badge warning" href="#/overview">▲ ${count} ${count === 1 ? "warning" : "warnings"}</a></span>`;
  return html`<span class="badge good" role="status">● well</span>`;
}

/** In a cluster: which gateway the pages are about. @param {{ cluster: Status["cluster"], node: string, setNode: (node: string) => void }} props */
function NodeChoice({ cluster, node, setNode }) {
  if (!cluster) return null;
  const { node: own, others } = cluster;
  return html`
    <label class="node">Gateway
      <select value=${node} onChange=${(/** @type {any} */ event) => setNode(event.target.value)}>
        <option value="">${own} (this one)</option>
        ${others.map((other) => html`<option value=${String(other.node)}>${other.node}${other.state === "serving" ? "" : `, ${other.state}`}</option>`)}
        <option value="all">all</option>
      </select>
    </label>
  `;
}
