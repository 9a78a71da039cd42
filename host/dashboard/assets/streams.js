// @ts-check
// Streams of the gateway: one JSON value on each line, for as long as the request lasts.

import { Problem, request, withQuery } from "./api.js";

/** The gateway writes at least an empty line every 15 s. After this time without any, the connection is dead. */
const SILENCE = 40_000;
/** The longest wait before a stream is asked for again. */
const LONGEST_WAIT = 10_000;

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
    const silence = setTimeout(() => controller.abort(), SILENCE);
    const { done, value } = await reader.read().finally(() => clearTimeout(silence));
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line.trim()) onLine(JSON.parse(line));
  }
}

/**
 * What a stream is doing: `connecting`, `live`; `waiting` to ask again, because of `problem`; or `missing`, because
 * this gateway does not offer it.
 * @typedef {{ what: "connecting" | "live" | "waiting" | "missing", problem?: Error }} StreamState
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
    const response = await request("GET", withQuery(path, { ...query, after: last }), { signal: controller.signal });
    onState({ what: "live" });
    await readLines(response, controller, (line) => {
      if (isStopped) return;
      if (typeof line.seq === "number") last = line.seq;
      onLine(line);
    });
  }

  async function run() {
    for (let wait = 1000; !isStopped; wait = Math.min(wait * 2, LONGEST_WAIT)) {
      const began = Date.now();
      onState({ what: "connecting" });
      /** @type {Error | undefined} */
      let problem;
      try {
        await once();
      } catch (error) {
        problem = /** @type {Error} */ (error);
      }
      if (isStopped) return;
      if (problem instanceof Problem && problem.isMissing) return onState({ what: "missing", problem });
      if (Date.now() - began > LONGEST_WAIT) wait = 1000;
      onState({ what: "waiting", problem });
      await new Promise((resolve) => {
        const timer = setTimeout(resolve, wait);
        wake = () => (clearTimeout(timer), resolve(null));
      });
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
