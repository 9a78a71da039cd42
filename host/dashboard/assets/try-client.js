// @ts-check
// A WebSocket client that runs in the gateway, so that the admin listener is enough to use it.

import { request } from "./api.js";
import { openStream, readLines } from "./streams.js";

/** @typedef {{ key: number, at: string, from: "client" | "gateway" | "note", text: string }} Entry */

/** Entries that are kept. */
const KEPT = 200;
/** How long the gateway may take to close a client, before the request is ended. */
const CLOSING_MS = 3000;
/** The gateway closes clients that are silent for 30 s, if its settings say nothing else. */
const KEEP_ALIVE_MS = 20_000;

export class TryClient {
  /** @type {"closed" | "opening" | "open"} */
  state = "closed";
  /** @type {Entry[]} */
  entries = [];
  /** The packets that were sent on this connection. */
  first = "";
  last = "";
  /**
   * Whether the last packet is sent again and again, so that the client is not closed because it is silent. Only if
   * somebody asks for it: such a packet may be a message to a user.
   */
  keepsAlive = false;
  /** Called after each change. */
  onChange = () => {};

  #count = 0;
  #timer = 0;
  #id = "";
  #controller = new AbortController();
  /** Whether the user has ended this connection. */
  #isLeft = false;

  /** Opens a connection, and resolves when it is open. Its end is an entry. */
  async connect() {
    this.#controller = new AbortController();
    this.#isLeft = false;
    this.state = "opening";
    [this.first, this.last] = ["", ""];
    this.onChange();
    let response;
    try {
      response = await openStream("POST", "/try", this.#controller);
    } catch (problem) {
      this.state = "closed";
      this.onChange();
      if (this.#isLeft) return;
      throw problem;
    }
    void this.#read(response, this.#controller);
  }

  /** @param {Response} response @param {AbortController} controller */
  async #read(response, controller) {
    let end = "The connection has ended.";
    try {
      await readLines(response, controller, (/** @type {import("../types").TryLine} */ line) => {
        if (line.client !== undefined) {
          this.#id = line.client;
          this.state = "open";
          this.#timer = setInterval(() => this.keepsAlive && this.last && void this.send(this.last).catch(() => {}), KEEP_ALIVE_MS);
          this.#note("note", "Connected.");
        } else if (line.text !== undefined) this.#note("gateway", line.text);
        else if (line.binary !== undefined) this.#note("gateway", `${atob(line.binary).length} bytes of binary data`);
        else if (line.closed) end = `Closed with ${line.closed.code}${line.closed.reason ? `: ${line.closed.reason}` : ""}.`;
      });
    } catch (problem) {
      end = /** @type {Error} */ (problem).message;
    }
    if (controller !== this.#controller) return;
    clearInterval(this.#timer);
    this.state = "closed";
    this.#note("note", this.#isLeft ? "You have disconnected." : end);
  }

  /** @param {string} text */
  async send(text) {
    await request("POST", `/try/${encodeURIComponent(this.#id)}`, { json: { text } });
    this.first ||= text;
    this.last = text;
    this.#note("client", text);
  }

  /** Pushes a line as an internal system does, and notes the answer. @param {string} line */
  async push(line) {
    const response = await request("POST", "/try/push", { text: line });
    const { answer } = await response.json();
    this.#note("note", `Pushed ${line} – the answer is ${answer}`);
    return answer;
  }

  /** Closes the client as a client does, with a close frame. */
  async disconnect() {
    const controller = this.#controller;
    this.#isLeft = true;
    if (this.state !== "open") return controller.abort();
    setTimeout(() => controller.abort(), CLOSING_MS);
    await request("DELETE", `/try/${encodeURIComponent(this.#id)}`).catch(() => controller.abort());
  }

  /** Ends the request. The gateway then closes the client, without a close frame. */
  leave() {
    this.#isLeft = true;
    this.#controller.abort();
  }

  clear() {
    this.entries = [];
    this.onChange();
  }

  /** @param {Entry["from"]} from @param {string} text */
  #note(from, text) {
    this.entries = [...this.entries, { key: this.#count++, at: new Date().toISOString(), from, text }].slice(-KEPT);
    this.onChange();
  }
}

