// What the page makes of answers that a gateway on its own, which is well, does not give. The test answers in its place.

import { assert, check, picture } from "./browser.mjs";

/** Lines of a trace, and whether each is a failure. */
const RESULTS = [
  [{ reached: 0, elsewhere: "asked" }, false, "another gateway was asked"],
  [{ reached: 2 }, false, "reached 2"],
  [{ reached: 5, "outbox-full": 3 }, true, "3 × outbox full"],
  [{ reached: 0 }, true, "reached nobody"],
  [{ reached: 1, elsewhere: "unreachable" }, true, "another gateway cannot be reached"],
];

const traceOf = (lines) => ({ contentType: "application/x-ndjson", body: lines.map((line) => `${JSON.stringify(line)}\n`).join("") });

/** Answers requests for `address` with `answer` while `act` runs. */
async function answering(page, address, answer, act) {
  await page.route(address, answer);
  await act();
  // An answer that is just on its way does not matter any more.
  await page.unrouteAll({ behavior: "ignoreErrors" });
}

/** Needs a session that may do everything, and no connected client. */
export async function checkAnswers(page) {
  const go = (name) => page.getByRole("navigation").getByRole("link", { name, exact: true }).click();
  const text = (words) => page.getByText(words).first().waitFor();
  const button = (name) => page.getByRole("button", { name, exact: true });
  const dialog = page.getByRole("dialog");

  await check("figures of a gateway that does not answer look old, and nothing looks well", async () => {
    await go("Overview");
    await text("limits.connections");
    await answering(page, /\/status$/, (route) => route.abort(), async () => {
      await text("The gateway cannot be reached.");
      await text(/as of \d\d:\d\d:\d\d/);
      assert((await page.locator(".stale .figures-row").count()) === 1, "the figures are not dimmed");
      assert((await page.locator(".health.good, .top .good").count()) === 0, "something looks well");
      await picture(page, "no-answer");
    });
    await page.locator(".stale").waitFor({ state: "detached" });
  });

  await check("a question stays open while its action goes on, and says why it failed", async () => {
    await go("Plugins");
    let fail = () => {};
    const hold = async (route) => {
      await new Promise((resolve) => (fail = resolve));
      await route.fulfill({ status: 503, json: { error: "there is no memory for this", reason: "budget" } });
    };
    await answering(page, /\/reload/, hold, async () => {
      await button("Reload …").first().click();
      await dialog.getByRole("button", { name: "Reload" }).click();
      await dialog.getByText("Please wait …").waitFor();
      // Browsers let the second one through.
      for (let times = 0; times < 3; times++) await page.keyboard.press("Escape");
      assert(await dialog.getByRole("button", { name: "Cancel" }).isDisabled(), "the question can be cancelled");
      fail();
      await dialog.getByText("there is no memory for this").waitFor();
      await page.keyboard.press("Escape");
      await dialog.waitFor({ state: "detached" });
      const focused = await page.evaluate(() => document.activeElement?.textContent?.trim());
      assert(focused === "Reload …", `the focus is on ${focused}`);

      await button("Reload …").first().click();
      await dialog.getByRole("button", { name: "Reload" }).click();
      await dialog.getByText("Please wait …").waitFor();
      await page.evaluate(() => (location.hash = "#/log"));
      await dialog.waitFor({ state: "detached" });
      fail();
      await text("This has failed: there is no memory for this");
      await button("I have read this").click();
    });
  });

  await check("a trace marks what failed, and nothing else", async () => {
    const lines = RESULTS.map(([result]) => ({ at: new Date().toISOString(), connection: "7", uid: "u9", what: "action", action: "deliver", to: { uid: "bob" }, result }));
    await answering(page, /\/trace\?/, (route) => route.fulfill(traceOf([{ what: "watching", connections: 1 }, ...lines])), async () => {
      await page.evaluate(() => (location.hash = "#/trace?uid=u9"));
      await text("the client has 1 connection now");
      for (const [, isFailure, words] of RESULTS) {
        const row = page.getByRole("row").filter({ hasText: words }).first();
        assert(/\bwrong\b/.test((await row.getAttribute("class")) ?? "") === isFailure, `"${words}" must${isFailure ? "" : " not"} be a failure`);
      }
      await picture(page, "trace-results");
      await button("Only failures").click();
      await page.getByRole("row").filter({ hasText: "another gateway was asked" }).first().waitFor({ state: "detached" });
    });
    await page.getByRole("link", { name: "Stop" }).click();
  });

  await check("a trace that is not allowed says so, and is not asked for again", async () => {
    let asked = 0;
    const refuse = (route) => (asked++, route.fulfill({ status: 403, json: { error: "admin.trace is false", reason: "scope" } }));
    await answering(page, /\/trace\?/, refuse, async () => {
      await page.evaluate(() => (location.hash = "#/trace?uid=u8"));
      await text("admin.trace is false");
      await page.waitForTimeout(2500);
      assert(asked === 1, `it was asked for ${asked} times`);
    });
    await page.getByRole("link", { name: "Stop" }).click();
  });

  await check("in a cluster, a list of connections says what may be missing and begins at its first page", async () => {
    const row = (id) => ({ id: String(id), node: 7, uid: `user-${id}`, address: "192.0.2.1:4", since: new Date().toISOString(), groups: 0, outbox_bytes: 0 });
    const status = async (route) => {
      const answer = await route.fetch({ url: route.request().url().split("?")[0] });
      const cluster = { node: 3, nats: "connected", others: [{ node: 7, state: "serving" }] };
      await route.fulfill({ json: { ...(await answer.json()), cluster } });
    };
    const list = (route) => {
      const query = new URL(route.request().url()).searchParams;
      const after = Number(query.get("after") ?? 0);
      const connections = query.has("uid") ? [] : [row(after + 1)];
      return route.fulfill({ json: { connections, next: query.has("uid") ? null : String(after + 1), missing: [], complete: false } });
    };
    await answering(page, /\/status/, status, () =>
      answering(page, /\/connections/, list, async () => {
        await go("Connections");
        await text("Other gateways may be missing");
        await text("on gateway 7");
        await button("Next page").last().click();
        await text("user-2");
        await page.getByLabel("Gateway").selectOption("7");
        await text("user-1");
        await page.getByLabel("Exact uid").fill("u1");
        await button("Search").click();
        await text("is not connected to the gateways that answered");
        await page.getByLabel("Gateway").selectOption("");
      }),
    );
    // The gateway is asked again who it is.
    await page.getByLabel("Gateway").waitFor({ state: "detached" });
  });
}
