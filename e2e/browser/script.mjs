// Checks of marquee.js: which tiles are seen. The page and its own tally know nothing of the
// script but its attributes; the cells of the service judge.

import assert from "node:assert/strict";
import { playVisibility, setVisibility, sleep, stored, until } from "./harness.mjs";
import { column, html, tile } from "./script-pages.mjs";

/** A tile is certainly seen after this, and certainly not before. */
const SURE_MS = 1000;
const NOT_MS = 430;

/** Shows tile `number` of a column for so long, without leaving the page; how long it really was. */
function show(page, number, ms) {
  return page.evaluate(([top, ms]) => new Promise((resolve) => {
    scrollTo(0, top);
    const start = performance.now();
    setTimeout(() => {
      scrollTo(0, 600 + top); // nothing is there
      resolve(performance.now() - start);
    }, ms);
  }), [number * 1200, ms]);
}

/** A page with so many tiles, none of them in the window. */
async function openColumn(t, count) {
  return t.open(await t.context(), t.site(html(t, column(count))));
}

const flush = (page) => page.evaluate(() => marquee.flush());
const once = (...videos) => Object.fromEntries(videos.map((video) => [video, [1, 0]]));

export async function held_tiles_are_seen_and_those_below_are_not(t) {
  const page = await openColumn(t, 8);
  for (const number of [1, 2, 4]) await show(page, number, SURE_MS);
  await t.expectCounts(once("v1", "v2", "v4"));
  await until("an empty storage", async () => (await stored(page)).length === 0);
  const { events, duplicates } = await t.totals();
  assert.deepEqual([events, duplicates], [3, 0], "each was sent once");
  assert.deepEqual(page.said, []);
}

export async function scrolled_past_fast_is_not_seen(t) {
  const page = await openColumn(t, 14);
  const fast = [];
  for (let number = 1; number < 11; number++) {
    const ms = await show(page, number, 60 + 30 * number);
    if (ms < NOT_MS) fast.push(`v${number}`);
  }
  assert.ok(fast.length >= 5, `this machine was fast enough for ${fast.length} only`);
  // Twice for less than enough is not enough: there was a break.
  const ms = [await show(page, 11, 300), await sleep(100), await show(page, 11, 300)];
  assert.ok(ms[0] < NOT_MS && ms[2] < NOT_MS, `too slow: ${ms}`);
  await show(page, 12, SURE_MS);
  await flush(page);
  await until("the held one", async () => (await t.counts()).v12);
  await sleep(1500);
  const counts = await t.counts();
  assert.deepEqual([...fast, "v11"].filter((video) => counts[video]), [], "these were not seen");
}

export async function a_hidden_tab_sees_nothing_until_it_is_visible_again(t) {
  const page = await openColumn(t, 3);
  await setVisibility(page, "hidden");
  await page.evaluate(() => scrollTo(0, 1200));
  await sleep(1500);
  await flush(page);
  await t.expectCounts({});
  // Twice for less than enough is not enough: there was a break.
  const [first, , second] = await playVisibility(page,
    [["visible", 300], ["hidden", 80], ["visible", 300], ["hidden", 0]]);
  assert.ok(first < NOT_MS && second < NOT_MS, `too slow: ${first} and ${second} ms`);
  await sleep(800);
  await t.expectCounts({});
  await setVisibility(page, "visible");
  await sleep(SURE_MS);
  await t.expectCounts(once("v1"));
}

export async function while_the_page_stands_still_nothing_is_seen(t) {
  const page = await openColumn(t, 4);
  // Visible for long, of which the page could not look most of the time.
  const ms = await page.evaluate(() => new Promise((resolve) => {
    scrollTo(0, 1200);
    setTimeout(() => {
      const end = performance.now() + 700;
      while (performance.now() < end);
      const awake = performance.now();
      setTimeout(() => {
        scrollTo(0, 1800);
        resolve(performance.now() - awake);
      }, 200);
    }, 200);
  }));
  assert.ok(ms < NOT_MS, `too slow: ${ms}`);
  await show(page, 2, SURE_MS);
  await flush(page);
  await until("the held one", async () => (await t.counts()).v2);
  await sleep(1500);
  await t.expectCounts(once("v2"));
}

export async function what_is_covered_is_not_seen(t) {
  const page = await openColumn(t, 6);
  const cover = (top, height) => page.evaluate(([top, height]) => {
    document.querySelector("#cover")?.remove();
    const style = `position:fixed;left:0;top:${top}px;width:800px;height:${height}px;background:#333`;
    document.body.insertAdjacentHTML("beforeend", `<div id="cover" style="${style}"></div>`);
  }, [top, height]);
  // Tiles are 200 px high, at the top of the window.
  await cover(0, 600);
  await show(page, 1, 1300);
  await cover(0, 150); // three quarters
  await show(page, 2, 1300);
  await cover(0, 60); // a third
  await show(page, 3, SURE_MS);
  await cover(0, 600); // and uncovered in time
  await page.evaluate(() => scrollTo(0, 4 * 1200));
  await sleep(1000);
  await flush(page);
  await t.expectCounts(once("v3"));
  await page.evaluate(() => document.querySelector("#cover").remove());
  await sleep(SURE_MS);
  await t.expectCounts(once("v3", "v4"));
  await page.evaluate(() => (document.querySelector("[data-video-id=v5]").style.opacity = 0));
  await show(page, 5, 1300);
  await page.evaluate(() => {
    const { style } = document.querySelector("[data-video-id=v5]");
    [style.opacity, style.visibility] = ["", "hidden"];
  });
  await show(page, 5, 1300);
  await flush(page);
  await t.expectCounts(once("v3", "v4"));
}

export async function what_a_dialog_stands_over_is_not_seen(t) {
  const page = await openColumn(t, 6);
  const at = (number) => page.evaluate((top) => scrollTo(0, top), number * 1200);
  const look = async (number) => (await show(page, number, 1300), await flush(page));
  // As libraries do it: nothing may be pointed at but the dialog, of which the page is a part.
  await page.evaluate(() => {
    document.body.style.pointerEvents = "none";
    const style = "position:fixed;inset:0;background:#333;pointer-events:auto";
    document.body.insertAdjacentHTML("beforeend", `<div id="cover" style="${style}"></div>`);
  });
  await look(1);
  await page.evaluate(() => document.querySelector("#cover").remove());
  await look(2); // nothing is over it, though a pointer would not find it
  const own = '[data-video-id="v3"]';
  await page.evaluate((own) => (document.querySelector(own).style.pointerEvents = "none"), own);
  await look(3);
  await t.expectCounts(once("v2", "v3"));
  assert.equal(await page.getAttribute(own, "style"), "pointer-events: none;", "it is left as it was");
  // The browser's own, which is small; its backdrop is over everything.
  await page.evaluate(() => {
    document.body.style.pointerEvents = "";
    document.body.insertAdjacentHTML("beforeend", "<dialog><p>Agreed?</p></dialog>");
    document.querySelector("dialog").showModal();
  });
  await look(4);
  await t.expectCounts(once("v2", "v3"));
  await page.evaluate(() => document.querySelector("dialog").close());
  await at(4);
  await sleep(SURE_MS);
  await flush(page);
  await t.expectCounts(once("v2", "v3", "v4"));
  assert.deepEqual(page.said, []);
}

export async function half_is_half_and_half_a_second_half_a_second(t) {
  // So much of each is above the lower edge of the window.
  const shares = { v45: 45, v48: 48, v52: 52, v55: 55 };
  const at = ([video, share], index) =>
    tile(video, "r0", { style: `position:absolute;width:150px;left:${index * 200}px;top:${600 - 2 * share}px` });
  const context = await t.context();
  const body = `<main style="position:relative;height:900px">${Object.entries(shares).map(at).join("")}</main>`;
  const still = await t.open(context, t.site(html(t, body), "still"));
  await sleep(SURE_MS);
  await flush(still);
  await t.expectCounts(once("v52", "v55"));

  const page = await t.open(context, t.site(html(t, column(12))));
  const [short, long] = [[], []];
  for (let number = 1; number < 12; number += 2) {
    if ((await show(page, number, 455)) < 490) short.push(`v${number}`);
    // As soon as it is complete, and not with some later look.
    if ((await show(page, number + 1, 570)) < 600) long.push(`v${number + 1}`);
  }
  assert.ok(short.length >= 1 && long.length >= 1, `too slow: ${short} and ${long}`);
  await flush(page);
  await sleep(1500);
  const counts = await t.counts();
  assert.deepEqual(short.filter((video) => counts[video]), [], "for less than half a second");
  // The machine may have been busy at one or the other moment: frames are not measured.
  assert.ok(long.some((video) => counts[video]), `none of ${long}`);
}

export async function a_row_that_scrolls_sideways_hides_what_is_outside(t) {
  const context = await t.context();
  const tiles = [0, 1, 2, 3].map((n) => tile(`v${n}`, "r0", { style: "flex:none;width:300px" }));
  const row = `<div id="row" style="display:flex;width:400px;overflow-x:scroll">${tiles.join("")}</div>`;
  const page = await t.open(context, t.site(html(t, row)));
  await sleep(SURE_MS);
  await flush(page);
  await t.expectCounts(once("v0")); // 100 of 300 px of the second
  await page.evaluate(() => (document.querySelector("#row").scrollLeft = 600));
  await sleep(SURE_MS);
  await t.expectCounts(once("v0", "v2"));
}

export async function half_of_the_window_is_enough_of_an_oversized_tile(t) {
  const context = await t.context();
  const big = (name) => tile(name, "r0", { style: "width:800px;height:40000px" });
  const gap = '<div style="height:2000px"></div>';
  const page = await t.open(context, t.site(html(t, gap + big("v0") + gap + big("v1") + gap)));
  await page.evaluate(() => scrollTo(0, 2000 - 600 + 240)); // 40 % of the window
  await sleep(1300);
  await flush(page);
  await t.expectCounts({});
  await page.evaluate(() => scrollTo(0, 2000 - 600 + 360)); // 60 %
  await sleep(SURE_MS);
  await t.expectCounts(once("v0"));
  await page.evaluate(() => scrollTo(0, 2000 + 40000 + 2000 + 20000)); // all of the window
  await sleep(SURE_MS);
  await t.expectCounts(once("v0", "v1"));
}

export async function an_oversized_tile_may_be_narrow_or_low(t) {
  // [preset, width, height, where the window begins for 40 % and for 60 % of what fits into it]
  const cases = [
    ["seen", 300, 1500, 240, 360],
    ["seen", 4000, 200, 80, 120],
    ["mrc", 300, 2100, 240, 360],
  ];
  // Each in a window of its own: a tab behind another one is not drawn.
  const pages = await Promise.all(cases.map(async ([preset, width, height], number) => {
    const gap = '<div style="width:5000px;height:600px"></div>';
    const big = tile(`v${number}`, "r0", { style: `width:${width}px;height:${height}px` });
    return t.open(await t.context(), t.site(html(t, gap + big + gap, { preset }), `page${number}`));
  }));
  const scroll = (share) => Promise.all(pages.map(async (page, number) => {
    await page.evaluate((y) => scrollTo(0, y), cases[number][share]);
    await sleep(1700);
    await flush(page);
  }));
  await scroll(3);
  await t.expectCounts({});
  await scroll(4);
  await t.expectCounts(once("v0", "v1", "v2"));
}

export async function preset_mrc_is_exact_about_sizes_shares_and_times(t) {
  const sizes = [ // 242,500 square pixels are large
    ["s45", 300, 200, 45], ["s55", 300, 200, 55],
    ["m33", 500, 484, 33], ["m55", 500, 484, 55],
    ["l27", 500, 485, 27], ["l33", 500, 485, 33],
  ];
  await Promise.all(sizes.map(async ([video, width, height, share]) => {
    const top = 600 - (height * share) / 100;
    const style = `position:absolute;top:${top}px;width:${width}px;height:${height}px`;
    const body = `<main style="position:relative;height:1500px">${tile(video, "r0", { style })}</main>`;
    const page = await t.open(await t.context(), t.site(html(t, body, { preset: "mrc" }), video));
    await sleep(1700);
    await flush(page);
  }));
  await t.expectCounts(once("s55", "m55", "l33"));

  const page = await t.open(await t.context(), t.site(html(t, column(8), { preset: "mrc" })));
  const [short, long] = [[], []];
  for (let number = 1; number < 8; number += 2) {
    if ((await show(page, number, 940)) < 985) short.push(`v${number}`);
    if ((await show(page, number + 1, 1080)) < 1130) long.push(`v${number + 1}`);
  }
  assert.ok(short.length >= 1 && long.length >= 1, `too slow: ${short} and ${long}`);
  await flush(page);
  await sleep(1500);
  const counts = await t.counts();
  assert.deepEqual(short.filter((video) => counts[video]), [], "for less than a second");
  assert.ok(long.some((video) => counts[video]), `none of ${long}`);
}

export async function preset_mrc_wants_a_second_and_less_of_large_tiles(t) {
  const context = await t.context();
  const gap = '<div style="height:1000px"></div>';
  const sized = (name, width, height) =>
    `<div style="height:1200px">${tile(name, "r0", { style: `width:${width}px;height:${height}px` })}</div>`;
  const tiles = [sized("short", 300, 200), sized("long", 300, 200), sized("large", 500, 500),
    sized("small", 400, 500), sized("part", 500, 500)];
  const page = await t.open(context, t.site(html(t, gap + tiles.join(""), { preset: "mrc" })));
  const at = async (number, visible, ms) => {
    const start = await page.evaluate((top) => (scrollTo(0, top), performance.now()),
      1000 + number * 1200 - 600 + visible);
    await sleep(ms);
    return (await page.evaluate(() => (scrollTo(0, 0), performance.now()))) - start;
  };
  const ms = await at(0, 200, 700);
  assert.ok(ms < 950, `too slow: ${ms}`);
  await at(1, 200, 1400);
  await at(2, 180, 1400); // 36 % of 250,000 square pixels
  await at(3, 180, 1400); // 36 % of 200,000
  await at(4, 130, 1400); // 26 % of 250,000
  await flush(page);
  await t.expectCounts(once("long", "large"));
}

export async function a_reranked_tile_counts_anew_and_the_same_one_once(t) {
  const context = await t.context();
  const tiles = tile("v0", "r0") + tile("v0", "r0") + tile("v1", "r0");
  const page = await t.open(context, t.site(html(t, `<main>${tiles}</main>`)));
  await sleep(SURE_MS);
  await flush(page);
  await t.expectCounts(once("v0", "v1"));
  assert.equal((await t.totals()).events, 2, "two elements with one request and video are one");
  await page.evaluate(() => (document.querySelector("[data-video-id=v1]").dataset.requestId = "r1"));
  await sleep(SURE_MS);
  await flush(page);
  await t.expectCounts({ v0: [1, 0], v1: [2, 0] });
  // Shown again under the request that was there before: nothing new.
  await page.evaluate(() => (document.querySelector("[data-video-id=v1]").dataset.requestId = "r0"));
  await sleep(SURE_MS);
  // Drawn anew as a whole, as frameworks do: what is the same is not new, what is new is.
  await page.evaluate((html) => (document.querySelector("main").innerHTML = html),
    tile("v0", "r0") + tile("v2", "r2"));
  await sleep(SURE_MS);
  await flush(page);
  await t.expectCounts({ v0: [1, 0], v1: [2, 0], v2: [1, 0] });
  assert.equal((await t.totals()).events, 4);
}

export async function a_request_that_changes_before_it_was_seen_is_not_seen(t) {
  const page = await openColumn(t, 2);
  // Twice 350 ms, long enough together, but of two requests.
  const ms = await page.evaluate(async () => {
    const tile = document.querySelector("[data-video-id=v1]");
    const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    const times = [performance.now()];
    scrollTo(0, 1200);
    await wait(350);
    tile.dataset.requestId = "other";
    times.push(performance.now());
    await wait(350);
    tile.remove();
    times.push(performance.now());
    return [times[1] - times[0], times[2] - times[1]];
  });
  assert.ok(Math.max(...ms) < NOT_MS, `too slow: ${ms}`);
  await sleep(600);
  await flush(page);
  assert.deepEqual(await stored(page), []);
  await sleep(1500);
  assert.equal((await t.totals()).events, 0);
}

export async function a_random_walk_is_what_an_independent_tally_says(t) {
  const context = await t.context();
  const tiles = Array.from({ length: 60 }, (_, n) => tile(`v${n}`, `r${n % 7}`,
    { style: `display:inline-block;width:${180 + (n % 3) * 60}px;height:${120 + (n % 4) * 50}px;margin:30px` }));
  const page = await t.open(context, t.site(html(t, `<main style="padding-top:2000px">${tiles.join("")}</main>`)));
  // The tally measures each frame by itself: the longest unbroken time that half of a tile was in
  // the window, and the longest in which frames came often enough to vouch for it.
  const tally = await page.evaluate(async () => {
    const all = [...document.querySelectorAll("[data-video-id]")].map((element) => (
      { element, since: null, longest: 0, sureSince: null, sure: 0 }));
    let last = performance.now();
    let ended = false;
    let slowest = 0;
    (function frame() {
      const now = performance.now();
      slowest = Math.max(slowest, now - last);
      for (const one of all) {
        const { left, top, right, bottom, width, height } = one.element.getBoundingClientRect();
        const x = Math.min(right, innerWidth) - Math.max(left, 0);
        const y = Math.min(bottom, innerHeight) - Math.max(top, 0);
        const isIn = x > 0 && y > 0 && 2 * x * y >= width * height;
        if (isIn) one.since ??= now;
        if (one.since !== null) one.longest = Math.max(one.longest, now - one.since);
        if (!isIn) one.since = null;
        if (!isIn || now - last > 100) one.sureSince = null;
        else one.sure = Math.max(one.sure, now - (one.sureSince ??= now));
      }
      last = now;
      if (!ended) requestAnimationFrame(frame);
    })();
    let seed = 42;
    const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
    const end = performance.now() + 14_000;
    while (performance.now() < end) {
      scrollTo(0, random() * (document.documentElement.scrollHeight - innerHeight));
      const wait = 60 + random() ** 2 * 1100;
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
    ended = true;
    scrollTo(0, 1e6);
    document.querySelector("main").remove();
    const tiles = all.map(({ element, longest, sure }) => ({ video: element.dataset.videoId, longest, sure }));
    return { slowest, tiles };
  });
  const of = (is) => tally.tiles.filter(is).map(({ video }) => video);
  const [seen, unseen] = [of(({ sure }) => sure >= 700), of(({ longest }) => longest < 450)];
  const glanced = of(({ longest }) => longest > 0 && longest < 450);
  assert.ok(seen.length >= 8 && glanced.length >= 5, `${JSON.stringify(tally)} says little`);
  await flush(page);
  await sleep(2000);
  const counts = await t.counts();
  assert.deepEqual(seen.filter((video) => counts[video]?.[0] !== 1), [], "seen, but not counted");
  assert.deepEqual(unseen.filter((video) => counts[video]), [], "counted, but not seen");
  const { duplicates } = await t.totals();
  assert.equal(duplicates, 0);
  console.log(`${seen.length} seen, ${unseen.length} not (${glanced.length} glanced at), slowest frame ${Math.round(tally.slowest)} ms`);
}

export async function a_click_counts_the_impression_and_the_play_at_once(t) {
  const context = await t.context();
  const tiles = tile("v0", "r0", { more: "data-play", inside: "<span>title</span>" })
    + tile("v1", "r0", { inside: "<button data-play>play</button> <em>more</em>" })
    + tile("v2", "r0", { inside: '<a href="#" data-play>play</a>' })
    + tile("v3", "r0", { inside: "<i>a player</i>" });
  const url = t.site(html(t, tiles, { attributes: { country: "DE" } }));
  const page = await t.open(context, url);
  const bodies = [];
  page.on("request", (request) => {
    if (request.url().includes("/v1/")) bodies.push([request.url(), request.postData(), request.headers()]);
  });
  // All of it before anything could be seen by waiting.
  const ms = await page.evaluate(() => {
    const start = performance.now();
    document.querySelector("span").click();
    document.querySelector("button").click();
    document.querySelector("button").click(); // twice
    document.querySelector("a").focus();
    marquee.play(document.querySelector("i"), { duration_s: 10 }); // too short: filtered
    return performance.now() - start;
  });
  assert.ok(ms < 300);
  await page.keyboard.press("Enter");
  await page.click("em"); // a click on a tile is no play, but its impression was there before
  await page.evaluate(() => marquee.play({ request_id: "r9", video_id: "v9", code: "c" }, { duration_s: 90 }));
  const expected = { v0: [1, 1], v1: [1, 1], v2: [1, 1], v3: [1, 0], v9: [1, 1] };
  await t.expectCounts(expected);
  await t.expectCounts(expected, '{"country":"DE"}');
  const events = (kind) => bodies.filter(([url]) => url.endsWith(kind))
    .flatMap(([, body]) => body.split("\n").map((line) => JSON.parse(line)));
  const [impression] = events("impressions").filter(({ video_id }) => video_id === "v1");
  const [play] = events("plays").filter(({ video_id }) => video_id === "v1");
  for (const event of [impression, play]) {
    const { ts, ...rest } = event;
    assert.ok(Math.abs(ts - Date.now()) < 60_000);
    assert.deepEqual(rest,
      { country: "DE", request_id: "r0", video_id: "v1", row: 2, position: 5, code: "code-v1" });
  }
  assert.equal(events("plays").find(({ video_id }) => video_id === "v9").code, "c");
  for (const [, , headers] of bodies) {
    assert.ok(headers["content-type"].startsWith("text/plain"), "no preflight");
    assert.equal(headers.cookie, undefined);
  }
}

export async function what_is_clicked_or_played_need_not_stay(t) {
  const page = await openColumn(t, 6);
  /** Shows a tile for 100 ms and does something to it; how long it really was there. */
  const touch = (number, what) => page.evaluate(([number, what]) => new Promise((resolve) => {
    scrollTo(0, number * 1200);
    const start = performance.now();
    const tile = document.querySelector(`[data-video-id="v${number}"]`);
    if (what === "click") tile.click();
    if (what === "play") marquee.play(tile);
    setTimeout(() => {
      scrollTo(0, 600 + number * 1200);
      resolve(performance.now() - start);
    }, 100);
  }), [number, what]);
  const ms = [await touch(1, "click"), await touch(2, "play"), await touch(3, "nothing")];
  assert.ok(Math.max(...ms) < NOT_MS, `too slow: ${ms}`);
  // A link that the middle button opens beside this page; the right one opens a menu.
  const press = (...what) => page.evaluate(([number, button, name]) => {
    scrollTo(0, number * 1200);
    const tile = document.querySelector(`[data-video-id="v${number}"]`);
    const inside = Object.assign(document.createElement(name), { href: "#" });
    tile.append(inside);
    inside.dispatchEvent(new MouseEvent("auxclick", { bubbles: true, button }));
    scrollTo(0, 600 + number * 1200);
  }, what);
  await press(4, 1, "a");
  await press(5, 2, "a");
  await press(6, 1, "div"); // nothing opens
  await flush(page);
  await t.expectCounts({ v1: [1, 0], v2: [1, 1], v4: [1, 0] });
}

export async function it_works_from_another_origin(t) {
  const context = await t.context();
  const page = await t.open(context, await t.otherSite(html(t, tile("v0", "r0", { more: "data-play" }))));
  assert.notEqual(new URL(page.url()).origin, t.address);
  let preflights = 0;
  page.on("request", (request) => (preflights += request.method() === "OPTIONS"));
  await page.evaluate(() => (marquee.onsent = (sent) => (window.sent = [...(window.sent ?? []), sent])));
  await page.click("[data-play]");
  await page.waitForFunction(() => window.sent?.length === 2);
  const sent = await page.evaluate(() => window.sent);
  assert.deepEqual(sent.map(({ kind }) => kind), ["impressions", "plays"]);
  for (const { accepted, rejected, positions } of sent) {
    assert.deepEqual([accepted.length, rejected], [1, []]);
    assert.equal(positions.length, 1, "where it stands in the log");
  }
  await t.expectCounts({ v0: [1, 1] });
  assert.deepEqual(await stored(page), []);
  assert.equal(preflights, 0);
}
