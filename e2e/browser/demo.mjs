// The demo, as somebody sees it who presses its buttons.

import assert from "node:assert/strict";
import { sleep, until } from "./harness.mjs";

async function operator(t) {
  const page = await (await t.context({ viewport: { width: 1280, height: 900 } })).newPage();
  await page.goto(`${t.address}/ops#token=${process.env.MARQUEE_HTTP_TOKEN}`);
  await page.locator("#crash").waitFor();
  return page;
}

/** All cells, as { key: [impressions, plays] }. */
async function cells(t) {
  const found = {};
  let after = "";
  do {
    const page = await t.get(`/v1/trends?slices=all&sort=video&limit=10000${after}`);
    for (const cell of page.cells) found[JSON.stringify([cell.video, cell.epoch_start_ms, cell.epoch_ms, cell.slice])] = [cell.impressions, cell.plays];
    after = page.next ? `&after=${encodeURIComponent(page.next)}` : "";
  } while (after);
  return found;
}

/** Nothing is sent any more, and all that was sent is counted. */
async function silence(t, page) {
  for (const kind of ["impressions", "plays"]) {
    await page.click(`text="Stop ${kind}"`);
    await page.locator("#said", { hasText: new RegExp(`${kind} are stopped`) }).waitFor();
  }
  await until("silence", async () => {
    const before = await t.get("/v1/status");
    await sleep(1500);
    const after = await t.get("/v1/status");
    return after.lag === 0 && before.totals.events === after.totals.events;
  });
}

export async function the_crash_button_changes_no_count(t) {
  const page = await operator(t);
  // While members send: no count may be lower, and the page says so.
  await until("events", async () => (await t.get("/v1/status")).totals.events > 3000);
  await page.click("#crash");
  await page.locator("#crash-log li", { hasText: "No count is lower" }).waitFor();
  console.log((await page.locator("#crash-log li").allTextContents()).join("\n"));
  await page.locator('#annotations [data-what="crash"]').first().waitFor();
  // And while nobody does: all are the same.
  await silence(t, page);
  const before = await cells(t);
  assert.ok(Object.keys(before).length > 50);
  const totals = (await t.get("/v1/status")).totals;
  await page.click("#crash");
  await page.locator("#crash-log li", { hasText: `${Object.keys(before).length} are the same, 0 have grown` }).waitFor();
  assert.deepEqual(await cells(t), before);
  assert.deepEqual((await t.get("/v1/status")).totals, totals, "what was read again moves no number");
  // It was really killed, twice: the starts of two more processes are noted.
  await page.locator('#annotations [data-what="start"]').nth(2).waitFor();
  assert.equal(await page.locator('#annotations [data-what="crash"]').count(), 2);
  assert.equal(await page.locator('#annotations [data-what="start"]').count(), 3);
}

export async function a_title_in_the_news_rises_and_a_source_that_is_stopped_is_silent(t) {
  const page = await operator(t);
  const counted = async () => {
    const counts = await t.counts();
    const sum = (side) => Object.values(counts).reduce((all, of) => all + of[side], 0);
    return { of: counts[video] ?? [0, 0], all: [sum(0), sum(1)] };
  };
  let video;
  await until("some plays", async () => (await counted()).all[1] > 100);
  // One that hardly anybody is shown.
  const titles = await page.locator("#title option").evaluateAll((all) => all.map(({ value }) => value));
  const counts = await t.counts();
  const shown = (title) => counts[title]?.[0] ?? 0;
  video = titles.reduce((least, title) => (shown(title) < shown(least) ? title : least));
  await page.selectOption("#title", video);
  const before = await counted();
  const share = (now, side) => (now.of[side] - before.of[side]) / Math.max(1, now.all[side] - before.all[side]);
  await page.click("text=Make it happen");
  await page.locator("#said", { hasText: "is in the news" }).waitFor();
  // One of 300 titles; members play some time after they were shown it.
  const rises = (side) => async () => {
    const now = await counted();
    return now.of[side] - before.of[side] > 10 && share(now, side) > Math.max(0.03, (3 * before.of[side]) / before.all[side]);
  };
  await until("it to be shown more often", rises(0));
  await until("it to be played more often", rises(1), 80_000);
  // What was shown in the last minute may still be played.
  await until("its place in the order", async () => (await t.get(`/member/why/${video}`)).rank <= 10, 80_000);
  await silence(t, page);
  await page.click('text="Start impressions"');
  const events = (await t.get("/v1/status")).totals.events;
  await until("events again", async () => (await t.get("/v1/status")).totals.events > events + 100);
}
