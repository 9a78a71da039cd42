// @ts-check
// Charts of the last 15 minutes.

/// <reference path="./vendor/uplot.d.ts" />
import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { clock, short } from "./format.js";
import { Empty } from "./parts.js";
import { onTheme } from "./theme.js";

const HEIGHT = 132;
const WINDOW_SECONDS = 15 * 60;
/** How long the script for charts may take to load. */
const LIBRARY_PATIENCE = 30_000;

/** uplot.js is a plain script, which loads beside the modules. */
const library = new Promise((resolve, reject) => {
  if ("uPlot" in globalThis) return resolve(null);
  const script = document.querySelector('script[src$="/uplot.js"]');
  script?.addEventListener("load", resolve);
  script?.addEventListener("error", reject);
  // The script may have failed before this module was there.
  setTimeout(reject, LIBRARY_PATIENCE);
});


/** @typedef {{ name: string, values: number[] }} Line */

/**
 * Returns the colour that a class has in the current theme. A canvas cannot use variables of the style sheet.
 * @param {HTMLElement} parent @param {string} kind
 */
function colourOf(parent, kind) {
  const probe = document.createElement("i");
  probe.className = kind;
  parent.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

/** @param {unknown} _ @param {number} _oldest @param {number} newest */
const lastMinutes = (_, _oldest, newest) => [newest - WINDOW_SECONDS, newest];

/** @param {unknown} _ @param {number} _least @param {number} most */
const fromZero = (_, _least, most) => [0, Math.max(1, most * 1.1)];

/** The hour and minute of a time in seconds. */
const minute = (/** @type {number} */ time) => clock(new Date(time * 1000).toISOString()).slice(0, 5);

/** The second line is dashed, so that nobody needs its colour. @param {HTMLElement} parent @param {number} index */
function lineStyle(parent, index) {
  return { stroke: colourOf(parent, `line-${index}`), width: 1.5, points: { show: false }, dash: index === 1 ? [4, 3] : undefined };
}

/**
 * @param {HTMLElement} parent
 * @param {Line[]} lines
 * @param {(index: number | null) => void} onPoint Called with the sample under the pointer.
 */
function options(parent, lines, onPoint) {
  const [text, grid] = [colourOf(parent, "chart-text"), colourOf(parent, "chart-grid")];
  const axis = { stroke: text, font: "11px system-ui, sans-serif", grid: { stroke: grid, width: 1 }, ticks: { show: false } };
  return {
    width: Math.max(parent.clientWidth, 200),
    height: HEIGHT,
    legend: { show: false },
    cursor: { y: false, sync: { key: "overview" }, drag: { x: false, y: false }, points: { size: 6 } },
    scales: {
      x: { range: lastMinutes },
      y: { range: fromZero },
    },
    axes: [
      { ...axis, size: 24, space: 60, values: (/** @type {unknown} */ _, /** @type {number[]} */ times) => times.map(minute) },
      { ...axis, size: 44, space: 26, values: (/** @type {unknown} */ _, /** @type {number[]} */ values) => values.map(short) },
    ],
    series: [{}, ...lines.map((_, index) => lineStyle(parent, index))],
    hooks: { setCursor: [(/** @type {uPlot} */ plot) => onPoint(plot.cursor.idx ?? null)] },
  };
}

/**
 * Lines over time. The figures above them are of the pointer's time, or the newest.
 * @param {{ title: string, times: number[], lines: Line[], format: (value: number) => string }} props
 */
export function Chart({ title, times, lines, format }) {
  const parent = useRef(/** @type {any} */ (null));
  const plot = useRef(/** @type {uPlot | null} */ (null));
  const [isBroken, setBroken] = useState(false);
  const [point, setPoint] = useState(/** @type {number | null} */ (null));
  const data = [times, ...lines.map((line) => line.values)];
  const latest = useRef(data);
  latest.current = data;

  useEffect(() => {
    let isShown = true;
    const draw = () => {
      if (!isShown) return;
      plot.current?.destroy();
      plot.current = new uPlot(options(parent.current, lines, setPoint), latest.current, parent.current);
    };
    library.then(draw, () => setBroken(true));
    const size = new ResizeObserver(() => plot.current?.setSize({ width: parent.current.clientWidth, height: HEIGHT }));
    size.observe(parent.current);
    const forget = onTheme(draw);
    return () => {
      isShown = false;
      forget();
      size.disconnect();
      plot.current?.destroy();
    };
  }, []);

  useEffect(() => plot.current?.setData(data), [times.at(-1), times.length]);

  const index = point !== null && point < times.length ? point : times.length - 1;
  const summary = lines.map(({ name, values }) => {
    const [now, most] = [values.at(-1) ?? 0, Math.max(0, ...values)].map(format);
    return `${name}: ${now} now, ${most} at most`;
  });
  return html`
    <figure class="chart">
      <figcaption>
        <h2>${title}</h2>
        ${lines.map(
          ({ name, values }, line) => html`
            <span class="legend"><i class="swatch line-${line}" aria-hidden="true"></i>${name} <b>${format(values[index] ?? 0)}</b></span>
          `,
        )}
      </figcaption>
      ${isBroken && html`<${Empty}>The curves cannot be drawn: a part of this page has not been loaded. Reload it.<//>`}
      <div ref=${parent} role="img" aria-label="${title}, last 15 minutes. ${summary.join("; ")}."></div>
    </figure>
  `;
}
