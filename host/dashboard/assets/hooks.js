// @ts-check
// What several pages need from the browser: repeated requests, streams, and the visibility of the tab.

import { useEffect, useRef, useState } from "./vendor/preact.js";
import { follow } from "./streams.js";

/** Returns whether the tab can be seen. */
function useVisibility() {
  const [isVisible, setVisible] = useState(!document.hidden);
  useEffect(() => {
    const changed = () => setVisible(!document.hidden);
    document.addEventListener("visibilitychange", changed);
    return () => document.removeEventListener("visibilitychange", changed);
  }, []);
  return isVisible;
}

/**
 * The last answer to a repeated request, when it came, and why there is no newer one.
 * @template T
 * @typedef {{ key: string, data: T | null, at: number, problem: Error | null }} Polled
 */

/**
 * Calls `load` now, and again `interval` ms after each answer while the tab can be seen; 0: only when asked to.
 * Keeps the last answer when a later request fails.
 * @template T
 * @param {(signal: AbortSignal) => Promise<T>} load
 * @param {number} interval
 * @param {unknown[]} inputs When one changes, the answer is forgotten and asked for again.
 * @returns {{ data: T | null, at: number, problem: Error | null, refresh: () => void }}
 */
export function usePolling(load, interval, inputs) {
  // What the answer is about: an answer to an earlier question is never shown.
  const key = JSON.stringify(inputs);
  const nothing = /** @type {Polled<T>} */ ({ key, data: null, at: 0, problem: null });
  const [state, setState] = useState(nothing);
  const [asked, setAsked] = useState(0);
  const isVisible = useVisibility();

  useEffect(() => {
    if (!isVisible) return;
    const controller = new AbortController();
    /** @type {number | undefined} */
    let timer;
    const ask = async () => {
      try {
        const data = await load(controller.signal);
        if (controller.signal.aborted) return;
        setState({ key, data, at: Date.now(), problem: null });
      } catch (problem) {
        if (controller.signal.aborted) return;
        setState((before) => ({ ...(before.key === key ? before : nothing), problem: /** @type {Error} */ (problem) }));
      }
      if (interval > 0) timer = setTimeout(ask, interval);
    };
    void ask();
    return () => {
      controller.abort();
      clearTimeout(timer);
    };
  }, [isVisible, asked, key]);

  const { data, at, problem } = state.key === key ? state : nothing;
  return { data, at, problem, refresh: () => setAsked((count) => count + 1) };
}

/**
 * Follows a stream while the page is shown. Returns what the stream is doing.
 * @param {string} path
 * @param {Record<string, string> | null} query No stream if this is null.
 * @param {{ after?: () => number | undefined, onLine: (line: any) => void, whileHidden?: boolean }} options
 *   `whileHidden`: goes on when the tab cannot be seen.
 * @returns {import("./streams.js").StreamState}
 */
export function useStream(path, query, options) {
  const [state, setState] = useState(/** @type {import("./streams.js").StreamState} */ ({ what: "connecting" }));
  const isVisible = useVisibility();
  const latest = useRef(options);
  latest.current = options;
  const isWanted = query !== null && (isVisible || options.whileHidden === true);

  useEffect(() => {
    if (!isWanted || query === null) return;
    const stream = follow(path, query, {
      after: latest.current.after?.(),
      onLine: (line) => latest.current.onLine(line),
      onState: setState,
    });
    return () => stream.stop();
  }, [isWanted, path, JSON.stringify(query)]);

  return state;
}

/** Makes a component show its data again every `interval` ms at most, however often `changed` is called. */
export function useBatches(/** @type {number} */ interval) {
  const [, setCount] = useState(0);
  const timer = useRef(/** @type {number | null} */ (null));
  useEffect(() => () => clearTimeout(timer.current ?? undefined), []);
  return () => {
    timer.current ??= setTimeout(() => {
      timer.current = null;
      setCount((count) => count + 1);
    }, interval);
  };
}
