// Chromium, watched: a page that breaks its own security policy, has a defect, or runs what a stranger wrote, fails the test.

import { readFileSync, mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

// The folder with `node_modules`; by default this one.
const packages = createRequire(process.env.NODE_PACKAGES ? `${path.resolve(process.env.NODE_PACKAGES)}/` : import.meta.url);
const { chromium } = packages("playwright-core");
const axe = readFileSync(packages.resolve("axe-core/axe.min.js"), "utf8");

const SWITCHES = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync"];
/** How long something may take to appear. */
const PATIENCE_MS = Number(process.env.HOTGATE_TESTS_PATIENCE ?? 30) * 1000;

export const start = () => chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: SWITCHES });

/** Prints a line for what holds; ends the test with what does not. */
export async function check(promise, holds) {
  try {
    await holds();
    console.log(`ok: ${promise}`);
  } catch (error) {
    console.log(`FAILED: ${promise}`);
    throw error;
  }
}

export function assert(condition, problem) {
  if (!condition) throw new Error(problem);
}

/** Opens a page in a browser profile of its own. `faults` are the things that must not happen. */
export async function open(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, colorScheme: "light", ...options });
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  const faults = [];
  page.on("pageerror", (error) => faults.push(`defect: ${error.message}`));
  page.on("dialog", (dialog) => (faults.push(`dialog: ${dialog.message()}`), dialog.dismiss()));
  page.on("console", (message) => {
    if (/Content Security Policy|TrustedHTML|TrustedScript/.test(message.text())) faults.push(`policy: ${message.text()}`);
  });
  page.on("request", (request) => {
    const { origin, protocol } = new URL(request.url());
    if (protocol.startsWith("http") && page.url().startsWith("http") && origin !== new URL(page.url()).origin) {
      faults.push(`request to another host: ${request.url()}`);
    }
  });
  return { page, faults };
}

/** The serious and critical findings of axe-core. It comes through the debugger, because the page allows no inline script. */
export async function findings(page) {
  const debug = await page.context().newCDPSession(page);
  await debug.send("Runtime.evaluate", { expression: axe });
  const run = "axe.run(document, { resultTypes: ['violations'] }).then(({ violations }) => JSON.stringify(violations))";
  const { result, exceptionDetails } = await debug.send("Runtime.evaluate", { expression: run, awaitPromise: true, returnByValue: true });
  assert(!exceptionDetails, `axe-core failed: ${exceptionDetails?.text}`);
  await debug.detach();
  return JSON.parse(result.value)
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(" ").slice(0, 300)}`);
}

/** Takes a picture, if a folder is given in SCREENSHOTS. */
export async function picture(page, name) {
  const folder = process.env.SCREENSHOTS;
  if (!folder) return;
  mkdirSync(folder, { recursive: true });
  await page.screenshot({ path: path.join(folder, `${name}.png`), fullPage: true });
}

/** Moves the focus with the Tab key until it is on an element with this text, and presses Enter. */
export async function pressByKeyboard(page, name) {
  for (let steps = 0; steps < 200; steps++) {
    await page.keyboard.press("Tab");
    const focused = await page.evaluate(() => document.activeElement?.getAttribute("aria-label") ?? document.activeElement?.textContent ?? "");
    if (name.test(focused.trim())) return page.keyboard.press("Enter");
  }
  throw new Error(`no element ${name} can be reached with the Tab key`);
}

/** Drops a file on an element. */
export async function drop(page, target, name, bytes) {
  const transfer = await page.evaluateHandle(
    ([name, text]) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([Uint8Array.from(atob(text), (byte) => byte.charCodeAt(0))], name));
      return transfer;
    },
    [name, Buffer.from(bytes).toString("base64")],
  );
  await target.dispatchEvent("drop", { dataTransfer: transfer });
}
