// @ts-check
// Requests to the gateway.

import { currentSession, endSession, startSession } from "./session.js";

/** An answer that is not the expected one. Its message is a sentence for people. */
export class Problem extends Error {
  /**
   * @param {number} status 0 if there was no answer
   * @param {string} sentence
   */
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }

  /** True if this gateway is too old for the request, or has it switched off. */
  get isMissing() {
    return this.status === 404 || this.status === 405;
  }
}

/**
 * What a request carries: a value as JSON, a line of text, or a component.
 * @typedef {{ json?: object, text?: string, file?: Blob, signal?: AbortSignal }} Options
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
  const token = currentSession()?.token;
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
  return new Problem(response.status, sentence);
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
    endSession("Your session has ended, because its time was over or the gateway was started again.");
  }
  throw problem;
}

/**
 * Returns the JSON that the gateway answers.
 * @param {string} path
 * @param {AbortSignal} [signal]
 */
export async function get(path, signal) {
  return (await request("GET", path, { signal })).json();
}

/**
 * Writes a path with a query. Leaves out parameters that are empty.
 * @param {string} path
 * @param {Record<string, string | number | null | undefined>} parameters
 */
export function withQuery(path, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value != null);
  const query = given.map(([name, value]) => `${name}=${encodeURIComponent(String(value))}`).join("&");
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

/** Ends the session, also in the gateway. */
export async function logOut() {
  await request("DELETE", "/session").catch(() => {});
  endSession("You have logged out.");
}
