// @ts-check
// Streams of the gateway: one JSON value on each line, for as long as the request lasts.

import { NO_ANSWER, PATIENCE, Problem, request, withQuery } from "./api.js";

/** The gateway writes at least an empty line every 15 s. After this time without any, the connection is dead. */
const SILENCE = 40_000;
/** The waits before a stream is asked for again. */
const SHORTEST_WAIT = 1000;
const LONGEST_WAIT = 10_000;

/**
 * Asks for a stream, and returns the response when it begins.
 * @param {string} method
 * @param {string} path
 * @param {AbortController} controller
 */
export async function openStream(method, path, controller) {
  let isLate = false;
  const patience = setTimeout(() => ((isLate = true), controller.abort()), PATIENCE);
  try {
    return await request(method, path, { signal: controller.signal });
  } catch (error) {
    throw isLate ? new Problem(0, NO_ANSWER) : error;
  } finally {
    clearTimeout(patience);
  }
}

/**
 * Returns what a stream gives next. The browser's own words for a broken connection mean nothing to people.
 * @param {ReadableStreamDefaultReader<string>} reader
 * @param {AbortController} controller
 */
async function nextPiece(reader, controller) {
  let isSilent = false;
  const silence = setTimeout(() => ((isSilent = true), controller.abort()), SILENCE);
  try {
    return await reader.read();
  } catch {
    throw new Problem(0, isSilent ? `The gateway has been silent for ${SILENCE / 1000} s.` : "The connection to the gateway has broken off.");
  } finally {
    clearTimeout(silence);
  }
}

/**
 * Calls `onLine` with each value of one response, until it ends.
 * @param {Response} response
 * @param {AbortController} controller
 * @param {(line: any) => void} onLine
 */
export async function readLines(response, controller, onLine) {
  const reader = /** @type {ReadableStream} */ (response.body).pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await nextPiece(reader, controller);
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line.trim()) onLine(JSON.parse(line));
  }
}

/**
 * What a stream is doing: `connecting`, `live`; `waiting` to ask again; or `over`, because it would be refused again.
 * `problem` is why it is not live.
 * @typedef {{ what: "connecting" | "live" | "waiting" | "over", problem?: Error }} StreamState
 */

/**
 * Reads a stream until `stop` is called on the returned object. When it ends, it is asked for again, after the last line.
 * @param {string} path
 * @param {Record<string, string>} query
 * @param {{ after?: number, onLine: (line: any) => void, onState: (state: StreamState) => void }} options
 */
export function follow(path, query, { after, onLine, onState }) {
  let controller = new AbortController();
  let isStopped = false;
  let last = after;
  /** @type {() => void} */
  let wake = () => {};

  async function once() {
    controller = new AbortController();
    const response = await openStream("GET", withQuery(path, { ...query, after: last }), controller);
    if (isStopped) return;
    onState({ what: "live" });
    await readLines(response, controller, (line) => {
      if (isStopped) return;
      if (typeof line.seq === "number") last = line.seq;
      onLine(line);
    });
  }

  async function run() {
    let wait = SHORTEST_WAIT;
    /** @type {Error | undefined} */
    let problem;
    while (!isStopped) {
      const began = Date.now();
      onState({ what: "connecting", problem });
      problem = undefined;
      try {
        await once();
      } catch (error) {
        problem = /** @type {Error} */ (error);
      }
      if (isStopped) return;
      if (problem instanceof Problem && problem.isFinal) return onState({ what: "over", problem });
      const hasLasted = Date.now() - began > LONGEST_WAIT;
      // The gateway ends each stream after some minutes, and expects that it is asked for again.
      if (hasLasted && !problem) continue;
      if (hasLasted) wait = SHORTEST_WAIT;
      onState({ what: "waiting", problem });
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, wait);
        wake = () => (clearTimeout(timer), resolve(null));
      });
      wait = Math.min(wait * 2, LONGEST_WAIT);
    }
  }

  void run();
  return {
    stop() {
      isStopped = true;
      controller.abort();
      wake();
    },
  };
}
