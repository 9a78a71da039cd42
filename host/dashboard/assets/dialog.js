// @ts-check
// A question before something is changed.

import { html, useLayoutEffect, useRef, useState } from "./vendor/preact.js";
import { Trouble } from "./parts.js";

/**
 * Asks before it calls `act`. Stays open, and says why, if `act` fails.
 * @param {{
 *   title: string, verb: string, isDangerous?: boolean, children?: unknown,
 *   act: () => Promise<unknown>, onClose: (done: boolean) => void,
 * }} props
 */
export function Confirmation({ title, verb, isDangerous, children, act, onClose }) {
  const dialog = useRef(/** @type {any} */ (null));
  const [isBusy, setBusy] = useState(false);
  const [problem, setProblem] = useState(/** @type {Error | null} */ (null));

  // Before the browser paints. Escape closes such a dialog, and the focus stays within it.
  useLayoutEffect(() => dialog.current.showModal(), []);

  const confirm = async () => {
    setBusy(true);
    setProblem(null);
    try {
      await act();
      onClose(true);
    } catch (failure) {
      setProblem(/** @type {Error} */ (failure));
      setBusy(false);
    }
  };
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (!isBusy) void confirm();
  };

  return html`
    <dialog ref=${dialog} aria-labelledby="question" onClose=${() => onClose(false)}>
      <form onSubmit=${submit}>
        <h2 id="question">${title}</h2>
        ${children}
        <${Trouble} problem=${problem} />
        <footer>
          <button type="button" onClick=${() => dialog.current.close()}>Cancel</button>
          <button type="submit" class=${isDangerous ? "dangerous" : "primary"} aria-disabled=${isBusy}>${isBusy ? "Please wait …" : verb}</button>
        </footer>
      </form>
    </dialog>
  `;
}
