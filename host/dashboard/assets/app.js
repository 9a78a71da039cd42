// @ts-check
// The page: logs in, and shows the frame with one of the six pages.

import { html, render, useEffect, useState } from "./vendor/preact.js";
import { logIn } from "./api.js";
import { Dashboard } from "./dashboard.js";
import { Login } from "./login.js";
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
    endSession(/** @type {Error} */ (problem).message);
  }
}

async function start() {
  restoreTheme();
  await useCode();
  const root = /** @type {HTMLElement} */ (document.getElementById("app"));
  render(html`<${App} />`, root);
  // A link with a code may be opened in a tab that shows the page already.
  addEventListener("hashchange", () => void useCode());
}

void start();
