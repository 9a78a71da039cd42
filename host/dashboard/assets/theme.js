// @ts-check
// Light or dark: as the system wants it, until somebody chooses.

const KEY = "hotgate.theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

/** @type {Set<() => void>} */
const listeners = new Set();

export function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : dark.matches;
}

function stored() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

/** Shows the theme that was chosen in this browser before. */
export function restoreTheme() {
  const chosen = stored();
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  dark.addEventListener("change", () => listeners.forEach((listener) => listener()));
}

export function toggleTheme() {
  const chosen = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = chosen;
  try {
    localStorage.setItem(KEY, chosen);
  } catch {
    // The browser keeps nothing for this page: the theme lasts until it is loaded again.
  }
  listeners.forEach((listener) => listener());
}

/**
 * Calls `listener` whenever the theme changes. Returns a function that stops this.
 * @param {() => void} listener
 */
export function onTheme(listener) {
  listeners.add(listener);
  return () => void listeners.delete(listener);
}
