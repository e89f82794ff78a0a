// Checks of marquee.js: what was seen arrives, once, with its own time, whatever happens.

import assert from "node:assert/strict";
import { setVisibility, sleep, stored, until } from "./harness.mjs";
import { html, tile } from "./script-pages.mjs";

const TILES = [0, 1, 2, 3, 4, 5].map((n) => tile(`v${n}`, "r0", { more: "data-play" })).join("");

/** Counts the impression of a tile by a call, as the page itself may; when that was. */
function see(page, video, request = "r0") {
  return page.evaluate(([video_id, request_id]) => {
    marquee.seen({ video_id, request_id });
    return Date.now();
  }, [video, request]);
}

const once = (...videos) => Object.fromEntries(videos.map((video) => [video, [1, 0]]));
const isEmpty = (page) => until("an empty storage", async () => (await stored(page)).length === 0);

export async function offline_and_another_page_lose_nothing_and_keep_the_times(t) {
  const context = await t.context();
  const page = await t.open(context, t.site(html(t, TILES, {})));
  // The next page is in the browser's cache, as the script is: no network is needed to go there.
  const shown = ["w0", "w1"];
  const next = t.site(html(t, shown.map((video) => tile(video, "r1")).join("")), "next", { cached: true });
  await page.evaluate((url) => fetch(url).then((answer) => answer.text()), next);
  const tally = {}; // by the test: video -> when it was seen, at the earliest and at the latest
  await page.waitForTimeout(900); // the first three are in the window
  await isEmpty(page);
  await context.setOffline(true);
  const gone = Date.now();
  tally.v4 = [gone, await see(page, "v4")];
  await sleep(1200);
  tally.v5 = [Date.now(), 0];
  await page.evaluate(() => document.querySelector("[data-video-id=v5]").click());
  tally.v5[1] = Date.now();
  await sleep(1500);
  assert.equal((await stored(page)).length, 3, "an impression, another one and its play");
  const left = Date.now();
  await page.evaluate((url) => (location.href = url), next);
  await page.waitForURL(next);
  await page.waitForFunction(() => window.marquee?.flush);
  assert.equal(await page.evaluate(() => navigator.onLine), false);
  await until("what is seen offline", async () => (await stored(page)).length === 5);
  for (const video of shown) tally[video] = [left + 500, Date.now()];
  await sleep(2500);
  await context.setOffline(false);
  const online = Date.now();
  await isEmpty(page);
  await t.expectCounts({ ...once("v0", "v1", "v2", "v4", ...shown), v5: [1, 1] });
  for (const { video, epoch_start_ms } of await t.cells()) {
    if (!tally[video]) continue;
    const [from, to] = tally[video];
    assert.ok(from - 1000 < epoch_start_ms && epoch_start_ms <= to,
      `${video} in the second ${epoch_start_ms}, not at ${tally[video]}`);
    assert.ok(epoch_start_ms + 1000 < online, "its own time");
  }
}

export async function the_online_event_sends_at_once(t) {
  const context = await t.context();
  // Without chance: tries after 1, 2, 4 and 8 s.
  const page = await t.open(context, t.site(html(t, "", { before: "Math.random = () => 0.999" })));
  await context.setOffline(true);
  await see(page, "v0");
  // Three tries have failed: the next one is six seconds away.
  await sleep(9000);
  await context.setOffline(false);
  const start = Date.now();
  await isEmpty(page);
  assert.ok(Date.now() - start < 1500, `${Date.now() - start} ms`);
  await t.expectCounts(once("v0"));
}

export async function the_tag_may_name_the_collector(t) {
  const context = await t.context();
  const options = { collector: "/site/collect", preset: "sene", attributes: ["country"] };
  const page = await t.open(context, t.site(html(t, "", options)));
  const [request] = await Promise.all([page.waitForRequest("**/v1/**"), see(page, "v0")]);
  assert.equal(request.url(), `${t.address}/site/collect/v1/impressions`);
  assert.deepEqual(Object.keys(JSON.parse(request.postData())).sort(), ["request_id", "ts", "video_id"]);
  const warnings = page.said.filter((text) => text.startsWith("marquee: "));
  assert.deepEqual(warnings, ["marquee: data-attributes is no JSON object", "marquee: data-preset is unknown"]);
  // What belongs to one collector goes to no other.
  const other = await t.open(context, t.site(html(t, ""), "other"));
  await other.evaluate(() => marquee.flush());
  assert.equal((await stored(other)).length, 1);
  await t.expectCounts({});
}

export async function a_busy_collector_is_tried_again_and_spared(t) {
  const context = await t.context();
  const page = await t.open(context, t.site(html(t, "")));
  const tries = [];
  const answers = [
    (route) => route.fulfill({ status: 503, headers: { "retry-after": "3" }, json: { detail: "busy" } }),
    (route) => route.fulfill({ status: 429, headers: { "retry-after": "1" }, body: "not even JSON" }),
    (route) => route.abort(),
  ];
  await page.route("**/v1/impressions", (route) => {
    tries.push(Date.now());
    return (answers[tries.length - 1] ?? ((route) => route.continue()))(route);
  });
  await see(page, "v0");
  await until("a first try", () => tries.length === 1);
  await see(page, "v1"); // what is new does not go before it is time either
  await page.evaluate(() => dispatchEvent(new Event("online"))); // nor is a network that is back a reason
  await isEmpty(page);
  assert.equal(tries.length, 4, "one try each");
  const [first, second] = [tries[1] - tries[0], tries[2] - tries[1]];
  assert.ok(first >= 2950 && second >= 950, `${first} and ${second} ms; ${page.said}`);
  await t.expectCounts(once("v0", "v1"));
  assert.equal((await t.totals()).duplicates, 0);
}

export async function an_event_that_is_refused_on_the_way_holds_up_no_other(t) {
  const context = await t.context();
  const page = await t.open(context, t.site(html(t, "")));
  // Something before the collector dislikes a text, and says so in its own words.
  await page.route("**/v1/impressions", (route) =>
    route.request().postData().includes("v0")
      ? route.fulfill({ status: 400, contentType: "text/html", body: "<h1>No</h1>" })
      : route.continue());
  for (const video of ["v0", "v1", "v2", "v3"]) await see(page, video);
  await t.expectCounts(once("v1", "v2", "v3"));
  // It was not the collector's word, so it stays, and the next page tries once more.
  const [left] = await stored(page);
  assert.equal(JSON.parse(left).video_id, "v0");
  await page.unroute("**/v1/impressions");
  await page.reload();
  await isEmpty(page);
  await t.expectCounts(once("v0", "v1", "v2", "v3"));
}

export async function what_is_refused_for_all_is_tried_less_and_less(t) {
  const context = await t.context();
  const page = await t.open(context, t.site(html(t, "")));
  let tries = 0;
  await page.route("**/v1/impressions", (route) => (tries++, route.fulfill({ status: 400, body: "No" })));
  for (let n = 0; n < 40; n++) await see(page, `v${n}`);
  await page.evaluate(() => marquee.play({ request_id: "r0", video_id: "v0" }, { duration_s: 90 }));
  // Plays are not refused, and do not wait.
  await until("the play", async () => (await t.totals()).events === 1, 3000);
  await sleep(8000);
  // At first a half of the batch each time, twenty by themselves, and then one after 1, 2, 4, ...
  // seconds, or half of them.
  assert.ok(tries >= 20 && tries <= 36, `${tries} tries`);
  assert.equal((await stored(page)).length, 40, "all of it is still there");
  await page.unroute("**/v1/impressions");
  await page.reload();
  await isEmpty(page);
  await until("all of them", async () => {
    const { events, duplicates } = await t.totals();
    return events - duplicates === 41;
  });
}

export async function some_that_are_refused_on_the_way_hold_up_no_new_one(t) {
  const context = await t.context();
  const page = await t.open(context, t.site(html(t, "")));
  await page.route("**/v1/impressions", (route) =>
    route.request().postData().includes("bad") ? route.fulfill({ status: 413, body: "No" }) : route.continue());
  for (let n = 0; n < 8; n++) await see(page, `bad${n}`);
  await sleep(3000);
  await page.reload();
  await page.waitForFunction(() => window.marquee?.flush);
  await page.evaluate(() => marquee.play({ request_id: "r0", video_id: "good" }, { duration_s: 90 }));
  await until("what is new", async () => (await t.counts()).good?.[1] === 1, 3000);
  await t.expectCounts({ good: [1, 1] });
  assert.equal((await stored(page)).length, 8);
  // Where nothing is stored, the page is told.
  const before = "window.marquee = { onsent: (sent) => (window.sent = sent) }";
  const quiet = await t.open(context, t.site(html(t, "", { storage: "none", before }), "quiet"));
  await quiet.route("**/v1/impressions", (route) => route.fulfill({ status: 400, body: "No" }));
  await see(quiet, "bad");
  await quiet.waitForFunction(() => window.sent?.rejected.length === 1);
}

export async function a_second_flush_spares_a_collector_that_asks_for_it(t) {
  const context = await t.context();
  const page = await t.open(context, t.site(html(t, "")));
  let tries = 0;
  await page.route("**/v1/impressions", async (route) => {
    if (tries++ > 0) return route.continue();
    await sleep(500);
    return route.fulfill({ status: 503, headers: { "retry-after": "4" }, json: { detail: "busy" } });
  });
  await see(page, "v0");
  await page.evaluate(() => Promise.all([marquee.flush(), marquee.flush()]));
  await sleep(2000);
  assert.equal(tries, 1);
  await isEmpty(page);
  await t.expectCounts(once("v0"));
}

export async function a_flush_includes_what_came_while_it_sent(t) {
  const context = await t.context();
  const page = await t.open(context, t.site(html(t, "")));
  const left = await page.evaluate(async () => {
    marquee.seen({ request_id: "r", video_id: "first" });
    // Answered, and other tabs have not heard of it yet.
    const answered = new Promise((resolve) => (marquee.onsent = resolve));
    marquee.flush();
    await answered;
    marquee.seen({ request_id: "r", video_id: "second" });
    await marquee.flush();
    return Object.keys(localStorage).filter((key) => key.startsWith("marquee ")).length;
  });
  assert.equal(left, 0);
  await t.expectCounts(once("first", "second"));
}

export async function an_answer_that_is_lost_counts_once(t) {
  const context = await t.context();
  const page = await t.open(context, t.site(html(t, "")));
  let lost = 0;
  await page.route("**/v1/impressions", async (route) => {
    if (lost++ > 0) return route.continue();
    await route.fetch(); // the collector has it
    return route.abort(); // and the page does not know
  });
  await see(page, "v0");
  await isEmpty(page);
  await t.expectCounts(once("v0"));
  const { events, duplicates } = await t.totals();
  assert.deepEqual([events, duplicates], [2, 1], "it was sent twice");
}

export async function rejected_events_are_dropped_and_told(t) {
  const context = await t.context();
  const before = "window.marquee = { onsent: (sent) => (window.sent = [...(window.sent ?? []), sent]) }";
  const page = await t.open(context, t.site(html(t, "", { before })));
  await page.evaluate(() => {
    marquee.play({ request_id: "r", video_id: "good" }, { duration_s: 90 });
    marquee.play({ request_id: "r", video_id: "bad" }, { duration_s: "long" });
  });
  await page.waitForFunction(() => window.sent?.length === 2);
  await page.evaluate(() => marquee.play({ request_id: "r", video_id: "bad" }, { duration_s: "longer" }));
  await page.waitForFunction(() => window.sent?.length === 3);
  const sent = await page.evaluate(() => window.sent);
  assert.deepEqual(sent.map(({ kind, accepted, rejected }) => [kind, accepted.length, rejected.length]),
    [["impressions", 2, 0], ["plays", 1, 1], ["plays", 0, 1]]);
  assert.equal(sent[1].rejected[0].event.video_id, "bad");
  assert.match(sent[1].rejected[0].reason, /duration_s/);
  assert.deepEqual(await stored(page), []);
  const warnings = page.said.filter((text) => text.startsWith("marquee: "));
  assert.equal(warnings.length, 1, `${page.said}`);
  await t.expectCounts({ good: [1, 1], bad: [1, 0] });
}

export async function what_is_too_large_is_split(t) {
  const context = await t.context();
  const page = await t.open(context, t.site(html(t, "")));
  const statuses = [];
  page.on("response", (answer) => answer.url().includes("/v1/") && statuses.push(answer.status()));
  await page.evaluate(() => {
    for (let n = 0; n < 60; n++) marquee.seen({ request_id: `r${n}`, video_id: "v" });
    marquee.seen({ request_id: "r", video_id: "v".repeat(3000) });
    // More than browsers send of a page that is left, and three bytes a letter.
    marquee.seen({ request_id: "r", video_id: "東".repeat(25000) });
  });
  await isEmpty(page);
  await t.expectCounts({ v: [60, 0] });
  assert.ok(statuses.includes(413) && statuses.includes(202), `${statuses}`);
  assert.equal((await t.totals()).events, 60);
}

export async function two_tabs_send_each_event_once(t) {
  const context = await t.context();
  const url = t.site(html(t, ""));
  const tabs = [await t.open(context, url), await t.open(context, url)];
  await context.setOffline(true);
  for (const [number, tab] of tabs.entries()) {
    for (const n of [0, 1, 2]) await see(tab, `v${number}${n}`);
  }
  await sleep(11_000); // each tab may now take what the other has
  assert.equal((await stored(tabs[0])).length, 6);
  await context.setOffline(false);
  await isEmpty(tabs[0]);
  await t.expectCounts(once("v00", "v01", "v02", "v10", "v11", "v12"));
  const { events, duplicates } = await t.totals();
  assert.deepEqual([events, duplicates], [6, 0], "one tab has sent it");
}

export async function what_a_closed_tab_has_left_another_one_sends(t) {
  const context = await t.context();
  const url = t.site(html(t, ""));
  const first = await t.open(context, url);
  await first.route("**/v1/**", (route) => route.abort());
  await see(first, "v0");
  await sleep(1500);
  assert.equal((await stored(first)).length, 1);
  // What is a week old is dropped, and so is what nobody can read.
  await first.evaluate((collector) => {
    const leave = (ms, kind, text) =>
      (localStorage[`marquee ${collector} ${ms.toString(36).padStart(9, "0")} other x ${kind}`] = text);
    const ts = Date.now() - 8 * 86400e3;
    leave(ts, "impressions", JSON.stringify({ request_id: "r", video_id: "ancient", ts }));
    leave(Date.now() - 60e3, "plays", "{");
    leave(Date.now() - 60e3, "thoughts", JSON.stringify({ request_id: "r", video_id: "v", ts: Date.now() }));
  }, t.address);
  await first.close();
  const second = await t.open(context, url);
  await until("one", async () => (await stored(second)).length === 1);
  await isEmpty(second);
  await t.expectCounts(once("v0"));
  assert.equal((await t.totals()).events, 1);
}

export async function without_local_storage_it_works_from_memory(t) {
  const context = await t.context();
  const before = 'Object.defineProperty(window, "localStorage", { get() { throw new DOMException("no", "SecurityError") } })';
  const page = await t.open(context, t.site(html(t, TILES, { before })));
  await sleep(900);
  await page.click("[data-video-id=v0]");
  await t.expectCounts({ v0: [1, 1], ...once("v1", "v2") });
  assert.deepEqual(page.said, []);
  // And where a site wants it so.
  const quiet = await t.open(context, t.site(html(t, TILES, { storage: "none" }), "quiet"));
  await see(quiet, "v9");
  assert.equal(await quiet.evaluate(() => localStorage.length + sessionStorage.length), 0);
  await until("the event", async () => (await t.counts()).v9);
}

export async function leaving_sends_what_is_there(t) {
  const context = await t.context();
  t.site("<!doctype html><title>Elsewhere</title>", "elsewhere");
  // Some browsers do not say of a page that is left that it is hidden.
  const deaf = 'addEventListener("visibilitychange", (event) => event.stopImmediatePropagation(), true);';
  const leave = async (video, { before = "", ...options }) => {
    const page = await t.open(context, t.site(html(t, "", { before: deaf + before, ...options })));
    await page.evaluate((video_id) => {
      marquee.seen({ request_id: "r0", video_id });
      location.href = "elsewhere.html";
    }, video);
    await page.waitForURL("**/elsewhere.html");
    return page;
  };
  // Nothing is stored and no script is there any more, so it was sent on leaving.
  await leave("forgotten", { storage: "none" });
  await t.expectCounts(once("forgotten"));
  // A page that hides its address, and a browser that knows beacons only.
  await leave("discreet", { storage: "none", head: '<meta name="referrer" content="no-referrer">' });
  await leave("old", { storage: "none", before: "delete Request.prototype.keepalive" });
  await t.expectCounts(once("forgotten", "discreet", "old"));
  const page = await leave("kept", { before: "delete Request.prototype.keepalive" });
  await t.expectCounts(once("forgotten", "discreet", "old", "kept"));
  // Nobody has heard that it arrived, so the next page sends it again, and it counts once.
  assert.equal((await stored(page)).length, 1);
  await page.goto(t.site(html(t, "")));
  await isEmpty(page);
  await t.expectCounts(once("forgotten", "discreet", "old", "kept"));
  const { events, duplicates } = await t.totals();
  assert.deepEqual([events, duplicates], [5, 1]);
}

/** All that outlives a page may have 64 KiB together. */
export async function what_is_left_in_a_hurry_is_the_play(t) {
  const context = await t.context();
  t.site("<!doctype html><title>Elsewhere</title>", "elsewhere");
  const attributes = { note: "東".repeat(13_000) };
  // At the last moment, when only what outlives the page is left.
  const before = `addEventListener("pagehide", () =>
    marquee.play({ request_id: "r0", video_id: "v0" }, { duration_s: 90 }));`;
  const page = await t.open(context, t.site(html(t, "", { storage: "none", attributes, before })));
  await page.evaluate(() => marquee.flush());
  await page.evaluate(() => (location.href = "elsewhere.html"));
  await page.waitForURL("**/elsewhere.html");
  // The impression was too much. Without a storage it is lost, and a play alone counts nowhere.
  await until("the play", async () => (await t.totals()).events === 1);
  await t.expectCounts({});
}

export async function a_tab_that_is_hidden_sends_at_once(t) {
  const context = await t.context();
  const page = await t.open(context, t.site(html(t, "")));
  await see(page, "v0");
  const start = Date.now();
  await setVisibility(page, "hidden");
  await isEmpty(page);
  assert.ok(Date.now() - start < 800, "before it would have been sent otherwise");
  await setVisibility(page, "visible");
  await t.expectCounts(once("v0"));
  assert.equal((await t.totals()).events, 1, "and once");
}

export async function the_storage_is_bounded_by_the_newest_thousand(t) {
  const context = await t.context();
  const page = await t.open(context, t.site(html(t, "")));
  await context.setOffline(true);
  await page.evaluate(async () => {
    for (let n = 0; n < 1100; n++) {
      marquee.seen({ request_id: `r${n}`, video_id: n < 100 ? "old" : "new" });
      // Keys sort by milliseconds.
      if (n === 99) await new Promise((resolve) => setTimeout(resolve, 10));
    }
  });
  assert.equal((await stored(page)).length, 1000);
  await context.setOffline(false);
  await isEmpty(page);
  await t.expectCounts({ new: [1000, 0] });
  assert.equal((await t.totals()).events, 1000);
}
