// @ts-check
// A client to try the gateway with.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { withQuery } from "./api.js";
import { clock, visible } from "./format.js";
import { Button, Empty, Foreign, Panel, Trouble } from "./parts.js";

/** @typedef {import("./try-client.js").TryClient} TryClient */
/** @typedef {import("../types").Surroundings & { tryClient: TryClient }} Props */

/** Packets that the default plugins understand. */
const LOGIN = '{"id":"u1"}';
const MESSAGE = '{"id":"u1","msg":"hello to myself"}';
const PUSH = '{"uid":"u1","msg":"hello"}';

/** @param {Props} props */
export function TryIt({ status, readOnly, tryClient: client }) {
  const [, setCount] = useState(0);
  const [problem, setProblem] = useState(/** @type {Error | null} */ (null));
  useEffect(() => {
    client.onChange = () => setCount((count) => count + 1);
    return () => (client.onChange = () => {});
  }, []);

  /** Does something with the client, and shows why it failed. */
  const attempt = async (/** @type {() => unknown} */ act) => {
    setProblem(null);
    try {
      await act();
    } catch (failure) {
      setProblem(/** @type {Error} */ (failure));
    }
  };
  if (readOnly) return html`<${Empty}>This session only reads. Log in with <code>hotgate dashboard</code> to connect a client.<//>`;
  return html`
    <p class="muted">This client connects to this gateway like any other: through its plugins, and within its limits. You can open other pages meanwhile.</p>
    <${Trouble} problem=${problem} what="a client to try it with" />
    <div class="columns try">
      <${ClientPanel} client=${client} attempt=${attempt} hint=${hintFor(status)} />
      <div class="stack">
        <${PushPanel} client=${client} attempt=${attempt} />
        <${NextSteps} />
      </div>
    </div>
  `;
}

/** What the first packet must be. @param {import("../types").Status | null} status */
function hintFor(status) {
  const chain = status?.plugins.filter(({ slot }) => slot.startsWith("authenticator")) ?? [];
  if (chain.length === 0 || chain.some(({ plugin, source }) => plugin === "origin-auth" || source === "builtin:origin-auth")) {
    return html`The first packet logs in: <code>${LOGIN}</code> makes this client <b>u1</b>.`;
  }
  const names = chain.map(({ plugin }) => visible(plugin)).join(", ");
  return html`The first packet logs in. Its form is up to the authenticator <b>${names}</b>; the default one takes <code>${LOGIN}</code>.`;
}

/** @param {{ client: TryClient, attempt: (act: () => unknown) => Promise<void>, hint: unknown }} props */
function ClientPanel({ client, attempt, hint }) {
  const [text, setText] = useState(client.first ? MESSAGE : LOGIN);
  const isOpen = client.state === "open";
  const uid = uidIn(client.first);

  const send = (/** @type {Event} */ event) => {
    event.preventDefault();
    void attempt(async () => {
      await client.send(text);
      if (text === LOGIN) setText(MESSAGE);
    });
  };
  const connect = () => {
    setText(LOGIN);
    void attempt(() => client.connect());
  };
  return html`
    <${Panel} title="Client" aside=${isOpen ? "● connected" : client.state === "opening" ? "… connecting" : "○ not connected"}>
      <div class="row">
        ${client.state === "closed"
          ? html`<${Button} kind="primary" onClick=${connect}>Connect<//>`
          : html`<${Button} onClick=${() => void client.disconnect()}>Disconnect<//>`}
        ${isOpen && uid && html`<a class="button" href=${withQuery("#/trace", { uid })}>Trace <${Foreign} text=${uid} limit=${20} /></a>`}
        <span class="space"></span>
        <${Button} onClick=${() => client.clear()}>Clear<//>
      </div>
      <${Messages} client=${client} />
      <form onSubmit=${send}>
        <label for="packet">Packet</label>
        <textarea id="packet" rows="2" spellcheck=${false} value=${text} onInput=${(/** @type {any} */ event) => setText(event.target.value)}></textarea>
        <p class="muted">${hint} <code>${MESSAGE}</code> then sends a message to u1.</p>
        <div class="row">
          <button type="submit" class="primary" disabled=${!isOpen}>Send</button>
          <label class="check">
            <input type="checkbox" checked=${client.keepsAlive} onChange=${(/** @type {any} */ event) => (client.keepsAlive = event.target.checked)} />
            <span>send the last one again every 20 s, so that the gateway does not close a silent client</span>
          </label>
        </div>
      </form>
    <//>
  `;
}

/** The uid in the packet that logged in, if it has the form that the default authenticator takes. @param {string} packet */
function uidIn(packet) {
  try {
    const { id } = JSON.parse(packet);
    return typeof id === "string" || typeof id === "number" ? String(id) : "";
  } catch {
    return "";
  }
}

const ARROWS = { client: "↑ sent", gateway: "↓ got", note: "" };

/** @param {{ client: TryClient }} props */
function Messages({ client }) {
  const box = useRef(/** @type {any} */ (null));
  useEffect(() => {
    box.current.scrollTop = box.current.scrollHeight;
  }, [client.entries.at(-1)?.key]);
  return html`
    <div class="log messages" role="log" aria-label="Messages" tabindex="0" ref=${box}>
      ${client.entries.length === 0 && html`<${Empty}>Press Connect. Messages of the gateway appear here.<//>`}
      ${client.entries.map(
        ({ key, at, from, text }) => html`
          <p key=${key} class=${from}>
            <time datetime=${at}>${clock(at)}</time> <b>${ARROWS[from]}</b> <span><${Foreign} text=${text} limit=${800} /></span>
          </p>
        `,
      )}
    </div>
  `;
}

/** @param {{ client: TryClient, attempt: (act: () => unknown) => Promise<void> }} props */
function PushPanel({ client, attempt }) {
  const [line, setLine] = useState(PUSH);
  const [answer, setAnswer] = useState("");
  const push = (/** @type {Event} */ event) => {
    event.preventDefault();
    void attempt(async () => setAnswer(await client.push(line)));
  };
  const explanation = answer === "fail" && ": nobody got it, or the router refused it";
  return html`
    <${Panel} title="Push a line">
      <form onSubmit=${push}>
        <label for="line">Line</label>
        <textarea id="line" rows="2" spellcheck=${false} value=${line} onInput=${(/** @type {any} */ event) => setLine(event.target.value)}></textarea>
        <p class="muted">As an internal system sends it to the text port. The router decides who gets it.</p>
        <div class="row">
          <button type="submit" class="primary">Push</button>
          <span role="status">${answer && html`The answer is <b><${Foreign} text=${answer} /></b>${explanation}.`}</span>
        </div>
      </form>
    <//>
  `;
}

/** What a newcomer can do with this client. */
const NextSteps = () => html`
  <${Panel} title="In five minutes">
    <ol class="steps-to-do">
      <li><b>Connect</b>, then <b>Send</b>: the authenticator decides who this client is.</li>
      <li><b>Push</b> a line: the router decides who gets it.</li>
      <li><b>Trace</b> the client: each decision, with its plugin, its generation and its time.</li>
      <li><a href="#/plugins">Plugins</a>: drop a changed <code>.wasm</code> file on its slot. No connection is closed.</li>
      <li>Is it in shadow there? Disconnect, connect and log in again, and compare its verdicts. Then promote it, or roll it back.</li>
    </ol>
  <//>
`;
