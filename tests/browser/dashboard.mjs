// The dashboard of a running gateway in a real browser: what an operator and a newcomer do with it.
//
//   DASHBOARD            what `hotgate dashboard` prints, less than a minute ago
//   DASHBOARD_READ_ONLY  what `hotgate dashboard --read-only` prints
//   CHANGED              another component for the slot `authenticator`, which accepts what the first one accepts
//   CHROMIUM             the browser; by default /usr/bin/chromium
//   NODE_PACKAGES        the folder where `npm ci` has been run with package.json; by default this one
//   SCREENSHOTS          a folder for pictures; none without it
//
// The gateway has the default plugins. Its authenticator comes from a file, with
// `deploy = { shadow = 100, canary = 50, probation = "10m" }`. Prints a line for each check; ends with 1 at the first that fails.

import { readFileSync } from "node:fs";

import { checkAnswers } from "./answers.mjs";
import { assert, check, drop, findings, open, picture, pressByKeyboard, start } from "./browser.mjs";

const { DASHBOARD, DASHBOARD_READ_ONLY, CHANGED } = process.env;
assert(DASHBOARD && DASHBOARD_READ_ONLY && CHANGED, "DASHBOARD, DASHBOARD_READ_ONLY and CHANGED must be set");

const SLOT = "authenticator";
const HOSTILE = "<img src=x onerror=alert(1)>\u202e";
const PAGES = ["Overview", "Plugins", "Connections", "Trace", "Log", "Try it"];

const browser = await start();
const { page, faults } = await open(browser);
const reader = await open(browser);
const origin = new URL(DASHBOARD).origin;

const go = (name) => page.getByRole("navigation").getByRole("link", { name, exact: true }).click();
const button = (name, exact = true) => page.getByRole("button", { name, exact });
const text = (words) => page.getByText(words).first().waitFor();
const slot = page.locator(`#slot-${SLOT}`);
const messages = page.getByRole("log", { name: "Messages" });

/** Connects a client and logs it in. */
async function logIn(uid) {
  await go("Try it");
  await button("Connect").click();
  await messages.getByText("HeartBeat").last().waitFor();
  await page.getByLabel("Packet").fill(JSON.stringify({ id: uid }));
  await button("Send").click();
  await messages.getByText("Link_succes").last().waitFor();
}

async function disconnect() {
  await go("Try it");
  await button("Disconnect").click();
  await button("Connect").waitFor();
}

try {
  await check("both links log in, and leave no code in the address", async () => {
    await page.goto(DASHBOARD);
    await reader.page.goto(DASHBOARD_READ_ONLY);
    for (const opened of [reader.page, page]) {
      await opened.getByRole("heading", { name: "Overview" }).waitFor();
      assert(!opened.url().includes("code"), opened.url());
    }
  });

  await check("a link works once, a wrong token does not, and both are said in words", async () => {
    const { page } = await open(browser);
    await page.goto(DASHBOARD);
    await page.getByText("This link has been used").waitFor();
    await page.getByLabel("Or paste a token").fill("wrong");
    await page.getByRole("button", { name: "Log in" }).click();
    await page.getByText("does not know this token").waitFor();
    await picture(page, "login");
    assert((await findings(page)).length === 0, "axe-core finds something on the login page");
    await page.context().close();
  });

  await check("a used link in a tab with a session leaves that session as it is", async () => {
    await page.evaluate((hash) => (location.hash = hash), new URL(DASHBOARD).hash);
    await text("You are still logged in as before.");
    await button("I have read this").click();
    assert(!page.url().includes("code"), page.url());
  });

  await check("the overview shows the state, figures and charts", async () => {
    await page.getByRole("region", { name: "State" }).waitFor();
    await page.getByRole("img", { name: /^Logins, last 15 minutes/ }).locator("canvas").waitFor();
    await text("limits.connections");
  });

  await check("a newcomer's client logs in and gets a pushed line", async () => {
    await go("Try it");
    await button("Connect").click();
    await messages.getByText("HeartBeat").waitFor();
    await button("Send").click();
    await messages.getByText("Link_successful").waitFor();
    await button("Push").click();
    await text("The answer is ok");
    await messages.getByText("↓ got").nth(2).waitFor();
  });

  await check("a file that is no component is refused in words", async () => {
    await go("Plugins");
    await drop(page, slot.locator(".drop"), "nonsense.wasm", "nonsense");
    await button("Deploy").click();
    await page.getByRole("dialog").getByRole("alert").waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "detached" });
  });

  await check("a changed component that is dropped on a slot goes into shadow", async () => {
    await drop(page, slot.locator(".drop"), "changed.wasm", readFileSync(CHANGED));
    await page.getByRole("dialog").getByText("changed.wasm").waitFor();
    await button("Deploy").click();
    await slot.getByText("Generation 2 is now in shadow.").waitFor();
    await slot.getByText("No login has been compared yet").waitFor();
  });

  await check("the verdicts of the next client are compared", async () => {
    await disconnect();
    await logIn("u1");
    await go("Plugins");
    await slot.getByText(/\b1 of 1 verdicts agree/).waitFor();
    await picture(page, "shadow");
  });

  await check("it is promoted by keyboard alone, and the question names the generation", async () => {
    for (const stage of ["a canary", "on probation"]) {
      await page.getByRole("heading", { name: "Plugins", exact: true }).focus();
      await pressByKeyboard(page, /^Promote generation 2/);
      await page.getByRole("dialog", { name: "Promote generation 2?" }).waitFor();
      await pressByKeyboard(page, /^Promote generation 2$/);
      await slot.getByText(`Generation 2 is now ${stage}.`).waitFor();
    }
  });

  await check("it is rolled back", async () => {
    await slot.getByRole("button", { name: /^Roll back generation 2/ }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Roll back generation 2" }).click();
    await slot.getByText("Generation 1 is now live.").waitFor();
    await slot.getByText("rolled back").first().waitFor({ state: "attached" });
  });

  await check("the client is still connected, and its trace shows a pushed line", async () => {
    await go("Try it");
    await page.getByRole("link", { name: "Trace u1" }).click();
    await text("● Live");
    // A trace shows what happens while somebody looks. So another tab pushes.
    const token = await page.evaluate(() => JSON.parse(sessionStorage.getItem("hotgate.session")).token);
    const push = async () => {
      const pushed = await fetch(`${origin}/try/push`, { method: "POST", headers: { Authorization: `Bearer ${token}` }, body: '{"uid":"u1","msg":"traced"}' });
      assert(pushed.ok, `the push was answered ${pushed.status}`);
    };
    const lines = page.getByRole("table", { name: "Trace" }).getByText("for the client");
    await push();
    await lines.first().waitFor();
    await picture(page, "trace");
    // A pause is for reading. It loses nothing.
    await button("Pause").click();
    await push();
    await text("1 newer line");
    assert((await lines.count()) === 1, "a paused trace has changed");
    await button("Go on").click();
    await lines.nth(1).waitFor();
  });

  await check("an operator closes the connection, and the client learns why", async () => {
    await go("Connections");
    await page.getByLabel("Exact uid").fill("u1");
    await button("Search").click();
    await page.getByRole("button", { name: /^Close connection/ }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Close" }).click();
    await text("1 connection was closed.");
    await text("is not connected");
    await go("Try it");
    await messages.getByText("Closed with 4907").waitFor();
  });

  await check("a hostile uid stays text on every page", async () => {
    await logIn(HOSTILE);
    await go("Connections");
    await page.getByRole("cell").getByText("<img src=x onerror=alert(1)>\\u{202e}").waitFor();
    await picture(page, "hostile");
    await page.getByRole("link", { name: /^Trace uid/ }).first().click();
    await text("● Live");
    assert((await page.locator("main img").count()) === 0, "the uid has become an image");
    await disconnect();
    await messages.getByText("You have disconnected.").last().waitFor();
  });

  await checkAnswers(page);

  await check("the log shows what was done, by level, and can be paused", async () => {
    await go("Log");
    await page.getByRole("log").getByText("admin request").first().waitFor();
    await button("Pause").click();
    await text("❚❚ Paused");
    await page.getByLabel("Containing").fill("no line has these words");
    await text("No line has this level and these words.");
  });

  await check("a read-only session shows nothing that changes something, and may not", async () => {
    const { page } = reader;
    const refused = /Promote|Roll back|Reload|Choose a file|^Close|^Connect$|^Push$/;
    for (const name of PAGES) {
      await page.getByRole("navigation").getByRole("link", { name, exact: true }).click();
      await page.getByRole("heading", { name, exact: true, level: 1 }).waitFor();
      assert((await page.getByRole("button", { name: refused }).count()) === 0, `${name} has a button that changes something`);
    }
    const token = await page.evaluate(() => JSON.parse(sessionStorage.getItem("hotgate.session")).token);
    const answer = await fetch(`${origin}/plugins/${SLOT}/reload`, { method: "POST", headers: { Authorization: `Bearer ${token}` } });
    assert(answer.status === 403, `a change was answered ${answer.status}`);
  });

  for (const theme of ["light", "dark"]) {
    await check(`no page has serious findings of axe-core, or is wider than a phone, when it is ${theme}`, async () => {
      for (const name of PAGES) {
        await go(name);
        await page.getByRole("heading", { name, exact: true, level: 1 }).waitFor();
        for (const width of [1280, 390]) {
          await page.setViewportSize({ width, height: 800 });
          const found = await findings(page);
          assert(found.length === 0, `${name}: ${found.join("; ")}`);
          const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
          assert(overflow <= 0, `${name} is ${overflow} px too wide at ${width} px`);
          await picture(page, `${name.toLowerCase().replace(" ", "-")}-${theme}-${width}`);
        }
        await page.setViewportSize({ width: 1280, height: 800 });
      }
      await button(theme === "light" ? "Dark" : "Light").click();
    });
  }

  await check("logging out ends the session", async () => {
    await button("Log out").click();
    await text("You have logged out.");
  });

  await check("no page broke its security policy, asked another host, had a defect or ran a stranger's text", async () => {
    assert([...faults, ...reader.faults].length === 0, [...faults, ...reader.faults].join("\n"));
  });
} catch (error) {
  await picture(page, "failed");
  console.log(error.message);
  process.exitCode = 1;
} finally {
  await browser.close();
}
