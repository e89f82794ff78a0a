// The operator's page: it is live, and no page of another site can read or change anything of it.

import assert from "node:assert/strict";
import { chromium } from "playwright-core";
import { sleep, until } from "./harness.mjs";

const TOKEN = process.env.MARQUEE_HTTP_TOKEN;

/** A page of somebody who has followed the link with the token. */
async function operator(t, context) {
  const page = await context.newPage();
  await page.goto(`${t.address}/ops#token=${TOKEN}`);
  await page.locator("#note").waitFor();
  assert.ok(!page.url().includes(TOKEN), "the token does not stay in the address");
  return page;
}

export async function a_note_of_one_operator_is_seen_by_another_at_once(t) {
  const [one, other] = [await t.context(), await t.context()];
  const [writes, reads] = [await operator(t, one), await other.newPage()];
  await reads.goto(`${t.address}/ops`);
  assert.equal(await reads.locator("#note").count(), 0, "who has no token is offered nothing to change");
  await writes.fill("#note", "canary <b>at</b> 10 %");
  await writes.keyboard.press("Enter");
  for (const page of [writes, reads]) await page.locator("#annotations", { hasText: "canary <b>at</b> 10 %" }).waitFor();
  await writes.locator("button", { hasText: "Log out" }).click();
  await writes.waitForURL("**/ops");
  assert.equal(await writes.locator("#note").count(), 0);
}

export async function numbers_and_letters_come_without_a_reload(t) {
  const context = await t.context();
  const page = await context.newPage();
  await page.goto(`${t.address}/ops`);
  await page.locator("#summary", { hasText: "Nothing was counted yet" }).waitFor();
  const loaded = await page.evaluate(() => performance.timeOrigin);
  const now = Date.now();
  const events = Array.from({ length: 500 }, (_, n) => ({ request_id: `r${n}`, video_id: `v${n % 7}`, ts: now }));
  const send = (kind, body) => fetch(`${t.address}/v1/${kind}`, { method: "POST", body: body.map((e) => JSON.stringify(e)).join("\n") });
  assert.equal((await send("impressions", events)).status, 202);
  // Half of them were shown, of these some are played twice, and all are shown once more afterwards.
  const shown = events.slice(0, 40).map((event) => ({ ...event, ts: now + 3000, duration_s: 60 }));
  const twice = shown.slice(0, 10).map((event) => ({ ...event, ts: now + 4000 }));
  const alone = Array.from({ length: 50 }, (_, n) => ({ ...shown[0], request_id: `alone${n}` }));
  assert.equal((await send("plays", [...shown, ...twice, ...alone])).status, 202);
  const joined = page.locator(".card", { hasText: "Plays joined" });
  await joined.locator("span", { hasText: /^50 of 100; 500 shown$/ }).waitFor();
  const again = events.slice(0, 40).map((event) => ({ ...event, ts: now + 5000 }));
  assert.equal((await send("impressions", again)).status, 202);
  await joined.locator("span", { hasText: /^50 of 100; 540 shown$/ }).waitFor();
  assert.equal(await joined.locator("strong").textContent(), "50.0 %");
  await page.locator("#trends tbody tr").nth(6).waitFor();
  // What comes after its epoch is closed is a late letter: it is shown, as text.
  const old = { request_id: "r1", video_id: "<img src=x onerror=alert(1)>", ts: now - 2 * 86_400_000 };
  assert.equal((await send("impressions", [old])).status, 202);
  await page.locator("#aside summary", { hasText: "is closed" }).click();
  await page.locator("#aside pre", { hasText: "<img src=x" }).waitFor();
  assert.equal(await page.evaluate(() => performance.timeOrigin), loaded, "the page was not loaded again");
  // The permalink of a search shows the same to somebody else.
  await page.fill('[name="search"]', "v3");
  await page.getByRole("button", { name: "Show", exact: true }).click();
  await page.waitForURL("**search=v3**");
  await page.locator("#trends tbody tr").first().waitFor();
  const link = await page.locator("text=Permalink").getAttribute("href");
  const other = await (await t.context()).newPage();
  await other.goto(t.address + link);
  assert.deepEqual(await other.locator("#trends tbody th").allTextContents(), ["v3"]);
  const csv = await (await fetch(t.address + (await other.locator("text=CSV").getAttribute("href")))).text();
  assert.match(csv.split("\n")[1], /^v3,71,6,/);
}

export async function a_page_of_another_site_can_neither_read_nor_change_anything(t) {
  const context = await t.context();
  const page = await operator(t, context);
  const before = await page.locator("#annotations li").count();
  // In the same browser, with the operator's cookie in it.
  const evil = await context.newPage();
  await evil.goto(await t.otherSite("<!doctype html><title>evil</title><h1>evil</h1>"));
  const tries = await evil.evaluate(async (address) => {
    const results = {};
    const attempt = async (name, act) => {
      try { results[name] = await act(); } catch (error) { results[name] = `refused: ${error.name}`; }
    };
    const note = JSON.stringify({ text: "evil was here" });
    const get = (more) => async () => (await fetch(`${address}/ops`, { credentials: "include", ...more })).text();
    await attempt("read", get({}));
    await attempt("read opaque", get({ mode: "no-cors" }));
    await attempt("csv", async () => (await fetch(`${address}/ops/trends.csv`)).text());
    const post = (more) => async () => {
      const answer = await fetch(`${address}/ops/api/annotations`, { method: "POST", credentials: "include", body: note, ...more });
      return `${answer.type} ${answer.status}`;
    };
    await attempt("change", post({}));
    await attempt("change with json", post({ headers: { "content-type": "application/json" } }));
    await attempt("change blindly", post({ mode: "no-cors" }));
    await attempt("beacon", async () => navigator.sendBeacon(`${address}/ops/api/annotations`, note));
    await attempt("stream", () => new Promise((resolve, reject) => {
      const stream = new EventSource(`${address}/ops/stream`, { withCredentials: true });
      stream.onerror = () => (stream.close(), reject(new Error("stream")));
      stream.addEventListener("sections", (event) => resolve(event.data));
      stream.onmessage = (event) => resolve(event.data);
    }));
    await attempt("script", () => new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.onload = () => resolve("loaded");
      script.onerror = () => reject(new Error("script"));
      script.src = `${address}/ops/assets/ops.js`;
      document.head.append(script);
    }));
    await attempt("frame", () => new Promise((resolve) => {
      const frame = document.createElement("iframe");
      frame.onload = () => {
        let text = null;
        try { text = frame.contentDocument?.body.textContent ?? null; } catch { /* of another origin */ }
        resolve(text || "nothing to read");
      };
      frame.src = `${address}/ops`;
      document.body.append(frame);
    }));
    await attempt("opened", async () => {
      const opened = open(`${address}/ops`);
      await new Promise((resolve) => setTimeout(resolve, 1000));
      let text = "nothing to read";
      try { text = opened.document.body.textContent || text; } catch { /* of another origin */ }
      return text;
    });
    return results;
  }, t.address);
  const leaked = Object.entries(tries).filter(([, result]) => String(result).includes("Over time") || String(result).includes("Trends"));
  assert.deepEqual(leaked, [], "nothing is read");
  for (const name of ["read", "csv", "change", "change with json", "stream", "script"]) assert.match(String(tries[name]), /^refused/, `${name}: ${tries[name]}`);
  // A form, which needs no script and asks nobody.
  await evil.evaluate((address) => {
    const form = document.createElement("form");
    Object.assign(form, { method: "post", action: `${address}/ops/api/annotations`, enctype: "text/plain" });
    const input = Object.assign(document.createElement("input"), { name: '{"text":"evil was here", "x":"', value: '"}' });
    form.append(input);
    document.body.append(form);
    form.submit();
  }, t.address);
  await evil.waitForLoadState();
  assert.match(await evil.locator("body").textContent(), /another site/);
  await sleep(1500);
  assert.equal(await page.locator("#annotations li").count(), before, "nothing was changed");
  // The operator's own page still can: the same request is refused for where it comes from.
  await page.fill("#note", "mine");
  await page.keyboard.press("Enter");
  await page.locator("#annotations", { hasText: "mine" }).waitFor();
}

export async function a_name_that_was_pointed_here_is_not_answered(t) {
  const port = new URL(t.address).port;
  const browser = await chromium.launch({
    executablePath: t.executablePath,
    args: ["--no-sandbox", "--host-resolver-rules=MAP evil.test 127.0.0.1"],
  });
  try {
    const page = await browser.newPage();
    for (const path of ["/ops", "/ops/stream", "/v1/trends"]) {
      const answer = await page.goto(`http://evil.test:${port}${path}`);
      assert.equal(answer.status(), 421, path);
    }
  } finally {
    await browser.close();
  }
}

export async function a_wrong_token_is_said_and_changes_nothing(t) {
  const page = await (await t.context()).newPage();
  await page.goto(`${t.address}/ops#token=wrong-wrong-wrong-wrong`);
  await page.locator("#said", { hasText: "not the one of this server" }).waitFor();
  assert.equal(await page.locator("#note").count(), 0);
  await until("the rest of the page", () => page.locator("#summary .card").count());
}

export async function what_is_being_read_stays_and_what_came_meanwhile_follows(t) {
  const page = await operator(t, await t.context());
  await page.evaluate(() => getSelection().selectAllChildren(document.getElementById("annotations")));
  const headers = { authorization: `Bearer ${TOKEN}` };
  const body = JSON.stringify({ text: "written while it is read" });
  assert.equal((await fetch(`${t.address}/ops/api/annotations`, { method: "POST", headers, body })).status, 202);
  await sleep(2500);
  const note = page.locator("#annotations", { hasText: "written while it is read" });
  assert.equal(await note.count(), 0, "what is selected does not go away");
  await page.evaluate(() => getSelection().removeAllRanges());
  await note.waitFor();
}

export async function a_page_that_is_one_too_many_is_kept_up_to_date_when_another_is_closed(t) {
  const end = new AbortController();
  const streams = Array.from({ length: 16 }, () => fetch(`${t.address}/ops/stream`, { signal: end.signal }));
  assert.ok((await Promise.all(streams)).every(({ status }) => status === 200));
  const page = await operator(t, await t.context());
  await page.locator("#said", { hasText: "trying again" }).waitFor();
  end.abort();
  await until("the page to be live again", async () => (await page.locator("#said").textContent()) === "");
}
