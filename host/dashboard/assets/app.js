// @ts-check
// The page: logs in, and shows the frame with one of the six pages.

import { html, render, useEffect, useState } from "./vendor/preact.js";
import { logIn } from "./api.js";
import { Dashboard } from "./dashboard.js";
import { Login } from "./login.js";
import { addNotice } from "./notices.js";
import { currentSession, endSession, onSession, takeCode } from "./session.js";
import { restoreTheme } from "./theme.js";

function App() {
  const [session, setSession] = useState(currentSession);
  useEffect(() => onSession(() => setSession(currentSession())), []);
  return session ? html`<${Dashboard} key=${session.token} session=${session} />` : html`<${Login} />`;
}

/** Logs in with the one-time code in the address, if there is one. */
async function useCode() {
  const code = takeCode();
  if (!code) return;
  try {
    await logIn({ code });
  } catch (problem) {
    const { message } = /** @type {Error} */ (problem);
    // A used link must not end the session of a tab that has one.
    if (currentSession()) addNotice(`${message} You are still logged in as before.`);
    else endSession(message);
  }
}

/** @param {DragEvent} event */
function keepPage(event) {
  const isTaken = event.defaultPrevented;
  if (isTaken || !event.dataTransfer?.types.includes("Files")) return;
  event.dataTransfer.dropEffect = "none";
  event.preventDefault();
}

async function start() {
  restoreTheme();
  await useCode();
  const root = /** @type {HTMLElement} */ (document.getElementById("app"));
  render(html`<${App} />`, root);
  // A link with a code may be opened in a tab that shows the page already.
  addEventListener("hashchange", () => void useCode());
  // A file that misses its place must not replace the page.
  for (const name of /** @type {const} */ (["dragover", "drop"])) addEventListener(name, keepPage);
}

void start();
