// @ts-check
// A question before something is changed.

import { addNotice } from "./notices.js";
import { html, useLayoutEffect, useRef, useState } from "./vendor/preact.js";
import { Trouble } from "./parts.js";

/**
 * Asks before it calls `act`. Stays open while `act` goes on; and afterwards, to say why, if `act` fails.
 * @param {{
 *   title: string, verb: string, isDangerous?: boolean, children?: unknown,
 *   act: () => Promise<unknown>, onClose: (done: boolean) => void,
 * }} props
 */
export function Confirmation({ title, verb, isDangerous, children, act, onClose }) {
  const dialog = useRef(/** @type {any} */ (null));
  const isDone = useRef(false);
  const isGone = useRef(false);
  const [isBusy, setBusy] = useState(false);
  const [problem, setProblem] = useState(/** @type {Error | null} */ (null));

  // Before the browser paints. Escape closes such a dialog, and the focus stays within it.
  useLayoutEffect(() => {
    dialog.current.showModal();
    return () => void (isGone.current = true);
  }, []);

  const confirm = async () => {
    setBusy(true);
    setProblem(null);
    try {
      await act();
      isDone.current = true;
    } catch (failure) {
      // The page may have been changed with the browser's Back button meanwhile.
      if (isGone.current) addNotice(`${title} This has failed: ${/** @type {Error} */ (failure).message}`);
      setProblem(/** @type {Error} */ (failure));
    }
    setBusy(false);
    // The browser gives the focus back to where it was, and tells `closed`.
    if (isDone.current && !isGone.current) dialog.current.close();
  };
  const closed = () => {
    // Browsers let a second Escape close any dialog.
    if (isBusy && !isDone.current) dialog.current.showModal();
    else onClose(isDone.current);
  };
  const submit = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (!isBusy) void confirm();
  };

  return html`
    <dialog ref=${dialog} aria-labelledby="question" onClose=${closed} onCancel=${(/** @type {Event} */ event) => isBusy && event.preventDefault()}>
      <form onSubmit=${submit}>
        <h2 id="question">${title}</h2>
        ${children}
        <${Trouble} problem=${problem} />
        <footer>
          <button type="button" disabled=${isBusy} onClick=${() => dialog.current.close()}>Cancel</button>
          <button type="submit" class=${isDangerous ? "dangerous" : "primary"} aria-disabled=${isBusy}>${isBusy ? "Please wait …" : verb}</button>
        </footer>
      </form>
    </dialog>
  `;
}
