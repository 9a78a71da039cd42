// @ts-check
// Requests to the gateway.

import { currentSession, endSession, startSession } from "./session.js";

/** How long the gateway may take to begin an answer, and to end a short one. */
export const PATIENCE = 15_000;
export const NO_ANSWER = `The gateway has not answered for ${PATIENCE / 1000} s.`;

/** An answer that is not the expected one. Its message is a sentence for people. */
export class Problem extends Error {
  /**
   * @param {number} status 0 if there was no answer
   * @param {string} sentence
   * @param {string} [reason] the gateway's word for programs
   */
  constructor(status, sentence, reason = "") {
    super(sentence);
    this.status = status;
    this.reason = reason;
  }

  /** True if this gateway is too old for the request, or has it switched off. */
  get isMissing() {
    return this.reason === "no-such-path" || this.reason === "method";
  }

  /** True if the same request would fail again. */
  get isFinal() {
    return this.status >= 400 && this.status < 500 && this.status !== 408 && this.status !== 429;
  }
}

/**
 * What a request carries: a value as JSON, a line of text, or a component. `token`: instead of the session's.
 * @typedef {{ json?: object, text?: string, file?: Blob, signal?: AbortSignal, token?: string }} Options
 */

/** @param {Options} options @returns {[string, BodyInit] | null} */
function content({ json, text, file }) {
  if (json !== undefined) return ["application/json", JSON.stringify(json)];
  if (text !== undefined) return ["text/plain", text];
  if (file !== undefined) return ["application/wasm", file];
  return null;
}

/**
 * Sends a request and returns the response, whatever its status.
 * @param {string} method
 * @param {string} path
 * @param {Options} options
 */
async function send(method, path, options) {
  const headers = new Headers();
  const token = options.token ?? currentSession()?.token;
  if (token) headers.set("Authorization", `Bearer ${token}`);
  const [type, body] = content(options) ?? [];
  if (type) headers.set("Content-Type", type);
  const { signal } = options;
  try {
    return await fetch(path, { method, headers, body, signal, cache: "no-store", credentials: "omit" });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem(0, "The gateway cannot be reached. Does it run, and is the tunnel to it open?");
  }
}

/**
 * Returns the problem that a response describes.
 * @param {Response} response
 */
async function problemOf(response) {
  const answer = await response.json().catch(() => null);
  const sentence = typeof answer?.error === "string" ? answer.error : `The gateway answered ${response.status}.`;
  return new Problem(response.status, sentence, typeof answer?.reason === "string" ? answer.reason : "");
}

/**
 * Sends a request. Returns the successful response; any other becomes a Problem. A token that is no longer valid ends
 * the session.
 * @param {string} method
 * @param {string} path
 * @param {Options} [options]
 */
export async function request(method, path, options = {}) {
  const token = currentSession()?.token;
  const response = await send(method, path, options);
  if (response.ok) return response;
  const problem = await problemOf(response);
  if (response.status === 401 && token && token === currentSession()?.token) {
    endSession("Your session has ended: its time was over, the gateway was started again, or newer sessions took its place. At most 8 may change something at a time, and 8 only read.");
  }
  throw problem;
}

/**
 * Returns the JSON that the gateway answers. A connection that is dead, but not closed, becomes a Problem after a while.
 * @param {string} path
 * @param {AbortSignal} signal
 */
export async function get(path, signal) {
  const patience = AbortSignal.timeout(PATIENCE);
  try {
    const response = await request("GET", path, { signal: AbortSignal.any([signal, patience]) });
    return await response.json();
  } catch (error) {
    if (signal.aborted || error instanceof Problem) throw error;
    throw new Problem(0, patience.aborted ? NO_ANSWER : "The gateway's answer has broken off.");
  }
}

/**
 * Writes a path with a query. Leaves out parameters that are empty.
 * @param {string} path
 * @param {Record<string, string | number | null | undefined>} parameters
 */
export function withQuery(path, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value != null);
  const query = given.map(([name, value]) => `${name}=${encodeURIComponent(String(value).toWellFormed())}`).join("&");
  return query ? `${path}?${query}` : path;
}

/**
 * Trades a one-time code or a token for a session.
 * @param {{ code: string } | { token: string }} proof
 */
export async function logIn(proof) {
  const response = await send("POST", "/session", { json: proof });
  if (!response.ok) {
    const problem = await problemOf(response);
    if (response.status !== 401) throw problem;
    const what = "code" in proof ? "This link has been used, or is older than a minute." : "The gateway does not know this token.";
    throw new Problem(401, what);
  }
  const { token, read_only: readOnly } = await response.json();
  startSession({ token, readOnly });
}

/** Ends the session: here at once, and in the gateway as soon as it answers. */
export function logOut() {
  const token = currentSession()?.token;
  endSession("You have logged out.");
  if (token) send("DELETE", "/session", { token }).catch(() => {});
}
