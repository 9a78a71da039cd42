// @ts-check
// The login page, for those who come without a link of `hotgate dashboard`.

import { html, useState } from "./vendor/preact.js";
import { logIn } from "./api.js";
import { Trouble } from "./parts.js";
import { reasonForLogin } from "./session.js";

export function Login() {
  const [token, setToken] = useState("");
  const [problem, setProblem] = useState(/** @type {Error | null} */ (null));
  const reason = reasonForLogin();

  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    setProblem(null);
    try {
      await logIn({ token: token.trim() });
    } catch (failure) {
      setProblem(/** @type {Error} */ (failure));
    }
  };

  return html`
    <main class="login">
      <h1><img src="/assets/icon.svg" alt="" width="28" height="28" /> Hotgate</h1>
      ${reason && html`<p class="trouble note" role="status">${reason}</p>`}
      <p>On the gateway's machine, run this command as the gateway's user, and open the link that it prints:</p>
      <pre tabindex="0">hotgate dashboard</pre>
      <p class="muted">With <code>--read-only</code>, the link opens a page that can change nothing.</p>
      <form onSubmit=${submit}>
        <label for="token">Or paste a token</label>
        <input id="token" type="password" autocomplete="off" required value=${token}
          onInput=${(/** @type {any} */ event) => setToken(event.target.value)} />
        <p class="muted">It is in the file <code>admin-token</code> or <code>admin-read-token</code> in the gateway's state folder.</p>
        <${Trouble} problem=${problem} what="a dashboard" />
        <button type="submit" class="primary">Log in</button>
      </form>
    </main>
  `;
}
