// All pages: no serious finding of axe, under 150 KB, and pictures of them for people to look at.

import assert from "node:assert/strict";
import { mkdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { sleep } from "./harness.mjs";

const AXE = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const TOKEN = process.env.MARQUEE_HTTP_TOKEN;
const MOST_BYTES = 150 * 1024;

const PAGES = [["home", "/"], ["title", "/title/a-quiet-orchard"], ["missing", "/title/nothing"], ["ops", `/ops#token=${TOKEN}`], ["ops-reader", "/ops"]];
const SCREENS = [
  ["desktop", { viewport: { width: 1280, height: 860 }, colorScheme: "light" }],
  ["desktop-dark", { viewport: { width: 1280, height: 860 }, colorScheme: "dark" }],
  ["phone", { viewport: { width: 390, height: 844 }, colorScheme: "light", isMobile: true, hasTouch: true }],
  ["phone-dark", { viewport: { width: 390, height: 844 }, colorScheme: "dark", isMobile: true, hasTouch: true }],
];

async function each(t, look) {
  for (const [screen, options] of SCREENS) {
    for (const [name, path] of PAGES) {
      const context = await t.context(options);
      const page = await context.newPage();
      const said = [];
      page.on("console", (message) => message.type() === "error" && said.push(message.text()));
      page.on("pageerror", (error) => said.push(String(error)));
      await page.goto(t.address + path);
      await page.locator("h1").first().waitFor({ state: "attached" });
      if (name === "ops") await page.locator("#note").waitFor();
      await sleep(1200);
      await look(page, name, screen);
      const faults = said.filter((text) => !(name === "missing" && text.includes("404")));
      assert.deepEqual(faults, [], `${name} on ${screen}`);
      await context.close();
    }
  }
}

export async function pages_pass_axe_fit_their_window_and_have_their_picture_taken(t) {
  const folder = process.env.MARQUEE_PICTURES;
  await mkdir(folder, { recursive: true });
  let rules = 0;
  await each(t, async (page, name, screen) => {
    const beyond = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    assert.ok(beyond <= 0, `${name} on ${screen} is ${beyond} px wider than its window`);
    await page.screenshot({ path: `${folder}/${name}-${screen}.png` });
    // The policy lets no foreign script in: it is run past it, as by an extension.
    const session = await page.context().newCDPSession(page);
    await session.send("Runtime.evaluate", { expression: AXE });
    const { violations, passes } = await page.evaluate(() => axe.run(document));
    rules += passes.length;
    const serious = violations.filter(({ impact }) => ["serious", "critical"].includes(impact));
    const words = serious.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html} ${node.failureSummary}`).slice(0, 3).join(" | ")}`);
    assert.deepEqual(words, [], `${name} on ${screen}`);
  });
  assert.ok(rules > 200, "it has looked");
}

export async function no_page_weighs_more_than_150_kilobytes(t) {
  for (const [name, path] of PAGES) {
    const context = await t.context({ viewport: { width: 1280, height: 860 } });
    const page = await context.newPage();
    const session = await context.newCDPSession(page);
    await session.send("Network.enable");
    let bytes = 0;
    const sizes = {};
    const urls = {};
    session.on("Network.responseReceived", ({ requestId, response }) => (urls[requestId] = response.url));
    session.on("Network.loadingFinished", ({ requestId, encodedDataLength }) => {
      bytes += encodedDataLength;
      sizes[urls[requestId]] = encodedDataLength;
    });
    await page.goto(t.address + path);
    // Everything of the first second; what a stream brings after it is no part of the page.
    await sleep(1500);
    console.log(`${name}: ${(bytes / 1024).toFixed(1)} KB in ${Object.keys(sizes).length} requests`);
    assert.ok(bytes > 5_000 && bytes < MOST_BYTES, `${name}: ${bytes} bytes ${JSON.stringify(sizes)}`);
    const foreign = Object.values(urls).filter((url) => !url.startsWith(t.address) && !url.startsWith("data:"));
    assert.deepEqual(foreign, [], name);
    await context.close();
  }
}
