// marquee.js tells a collector what the visitors of any site see and play: see docs/script.md.
(() => {
  "use strict";
  const tag = document.currentScript ?? document.querySelector('script[src*="/marquee.js"]');
  // A page may set `onsent` before the script is there.
  const early = window.marquee;
  if (!tag || early?.play) return;

  const TILES = "[data-video-id][data-request-id]";
  const KINDS = ["impressions", "plays"];
  const PRESETS = {
    seen: { ms: 500, share: () => 0.5 },
    mrc: { ms: 1000, share: (area) => (area >= 242500 ? 0.3 : 0.5) },
  };
  // What waits to be seen is looked at this often, and nobody can vouch for longer gaps than that.
  const CHECK_MS = 100;
  const GAP_MS = 400;
  // A grid of 6 x 6 points tells how much of a tile is covered.
  const POINTS = 6;
  const POINTABLE = "pointer-events";
  // Impressions wait so long for others.
  const COLLECT_MS = 1000;
  // A request that outlives its page may have 64 KiB, and a character 3 bytes.
  const BATCH_EVENTS = 200;
  const BATCH_CHARACTERS = 20000;
  // The newest events are kept, and none for longer than a week.
  const KEPT_MAX = 1000;
  const KEPT_MS = 7 * 86400e3;
  // What another tab has not sent by then was left behind.
  const LEFT_MS = 10e3;
  // Tabs hear of what another one has removed only after a moment.
  const SETTLE_MS = 100;
  const TIMEOUT_MS = 30e3;

  const { dataset } = tag;
  const base = dataset.collector ?? new URL(tag.src).origin;
  const collector = new URL(base, location.href).href.replace(/\/$/, "");
  const preset = PRESETS[dataset.preset] ?? PRESETS.seen;
  const given = attempt(() => JSON.parse(dataset.attributes ?? "{}"));
  const attributes = given?.constructor === Object ? given : {};
  if (given !== attributes) warn("data-attributes is no JSON object");
  if (dataset.preset && preset !== PRESETS[dataset.preset]) warn("data-preset is unknown");

  /** The result of what may fail where a browser or a site does not let us. */
  function attempt(work) {
    try {
      return work();
    } catch {}
  }

  /** Once for each text. */
  function warn(text, ...more) {
    if (!warn[text]) console.warn(`marquee: ${text}`, ...more);
    warn[text] = true;
  }

  // What is kept until the collector has it. Each event is one entry of the local storage, so tabs
  // never write over each other: "marquee COLLECTOR TIME TAB NUMBER KIND". Keys sort by time.

  const prefix = `marquee ${collector} `;
  const disk = attempt(() => {
    if (dataset.storage === "none") return null;
    localStorage.setItem(`${prefix}?`, "");
    localStorage.removeItem(`${prefix}?`);
    return localStorage;
  });
  // The pages of one tab, one after the other, go on with what the one before has left.
  const tab = attempt(() => disk && (sessionStorage.marqueeTab ??= random())) ?? random();
  /** What this page has to send: key -> { kind, event, text, stored }. */
  const kept = new Map();
  /** Keys of what is being sent, or was given to a beacon. */
  const flying = new Set();
  /** Keys of what something on the way refuses: it stays stored, for a later page to try. */
  const aside = new Set();
  /** How many of a kind were set aside since one was taken. */
  const refusals = { impressions: 0, plays: 0 };
  // So many, one after the other, are no matter of single events.
  const isStuck = (kind) => refusals[kind] >= 20;

  function random() {
    return Math.random().toString(36).slice(2, 12);
  }

  function onDisk() {
    return attempt(() => Object.keys(disk).filter((key) => key.startsWith(prefix)).sort()) ?? [];
  }

  function keep(kind, event) {
    const time = event.ts.toString(36).padStart(9, "0");
    const key = `${prefix}${time} ${tab} ${random()} ${kind}`;
    const text = JSON.stringify(event);
    const stored = attempt(() => (disk.setItem(key, text), true));
    kept.set(key, { kind, event, text, stored });
    if (kept.size > KEPT_MAX) bound();
  }

  function bound() {
    [...kept.keys()].sort().slice(0, -KEPT_MAX).forEach(drop);
  }

  function drop(key) {
    kept.delete(key);
    attempt(() => disk.removeItem(key));
  }

  /** Takes over what earlier pages of this tab, or other tabs, have left behind. */
  function adopt() {
    for (const key of onDisk()) {
      if (kept.has(key) || aside.has(key)) continue;
      const [time, from, , kind] = key.slice(prefix.length).split(" ");
      const age = Date.now() - parseInt(time, 36);
      const text = disk.getItem(key);
      const event = attempt(() => JSON.parse(text));
      if (!event || !KINDS.includes(kind) || age > KEPT_MS) drop(key);
      else if (from !== tab && Math.abs(age) < LEFT_MS) schedule(LEFT_MS);
      else kept.set(key, { kind, event, text, stored: true });
    }
    bound();
  }

  // Sending.

  let [timer, due, notBefore, failures] = [0, Infinity, 0, 0];
  // Until then the collector itself has asked for no more.
  let spared = 0;
  let most = BATCH_EVENTS;
  let [sending, following] = [null, null];

  /** Sends after so many milliseconds at the latest, unless the collector was told to be spared. */
  function schedule(ms) {
    const at = Math.max(Date.now() + ms, notBefore);
    if (at >= due) return;
    clearTimeout(timer);
    due = at;
    timer = setTimeout(flush, at - Date.now());
  }

  /** Sends now. The promise resolves when all is sent, or when the collector could not take it. */
  function flush() {
    clearTimeout(timer);
    due = Infinity;
    // What came meanwhile is sent after it, unless it has failed.
    const again = () => (Date.now() < notBefore ? schedule(0) : flush());
    if (sending) return (following ??= sending.then(again));
    sending = alone().finally(() => {
      sending = following = null;
      if (kept.size > 0) schedule(COLLECT_MS);
    });
    return sending;
  }

  /** One tab at a time: two might send the same. That is harmless, so nobody waits for ever. */
  async function alone() {
    try {
      const signal = AbortSignal.timeout(TIMEOUT_MS);
      await navigator.locks.request(prefix, { signal }, async () => {
        await send();
        await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
      });
    } catch {
      await send();
    }
  }

  async function send() {
    adopt();
    for (const kind of KINDS) {
      for (let batch = pick(kind); batch.length > 0 && !isStuck(kind); batch = pick(kind)) {
        if (!(await post(kind, batch))) return;
      }
    }
    const stuck = KINDS.filter(isStuck);
    // One more with each try.
    stuck.forEach((kind) => refusals[kind]--);
    if (stuck.length > 0) retry();
  }

  /** The oldest events of a kind that nobody is sending, as entries of `kept`. */
  function pick(kind) {
    const batch = [];
    let room = BATCH_CHARACTERS;
    for (const [key, one] of [...kept].sort(([a], [b]) => (a < b ? -1 : 1))) {
      if (one.kind !== kind || flying.has(key)) continue;
      room -= one.text.length;
      // Another tab has sent it, or the visitor has cleared it.
      if (one.stored && attempt(() => disk.getItem(key)) === null) kept.delete(key);
      else if (batch.length === most || (room < 0 && batch.length > 0)) break;
      else batch.push([key, one]);
    }
    return batch;
  }

  function request(kind, batch) {
    // A text, which needs no preflight.
    return [`${collector}/v1/${kind}`, batch.map(([, { text }]) => text).join("\n")];
  }

  /** Sends a batch; whether to go on. */
  async function post(kind, batch) {
    batch.forEach(([key]) => flying.add(key));
    try {
      const [url, body] = request(kind, batch);
      const signal = AbortSignal.timeout?.(TIMEOUT_MS);
      const keepalive = body.length < 1.05 * BATCH_CHARACTERS;
      const options = { method: "POST", credentials: "omit", keepalive, body, signal };
      const answer = await fetch(url, options);
      return take(kind, batch, answer, (await answer.json().catch(() => null)) ?? {});
    } catch {
      return retry();
    } finally {
      batch.forEach(([key]) => flying.delete(key));
    }
  }

  function take(kind, batch, { status, headers }, told) {
    const isRefusal = status === 413 || status === 400;
    if (isRefusal && !told.rejected_count) {
      most = Math.ceil(batch.length / 2);
      if (batch.length > 1) return true;
      const [[key, { event, stored }]] = batch;
      if (!told.detail && stored) {
        warn("refused before the collector", event);
        aside.add(key);
        kept.delete(key);
        refusals[kind]++;
        return true;
      }
    }
    if (status !== 202 && status !== 207 && !isRefusal) {
      if (status !== 429 && status !== 503) warn(`the collector answers ${status}`, told.detail);
      return retry(headers.get("retry-after"));
    }
    const reasons = new Map((told.rejected ?? []).map(({ index, reason }) => [index, reason]));
    const sent = { kind, accepted: [], rejected: [], positions: told.positions ?? [] };
    batch.forEach(([key, { event }], index) => {
      drop(key);
      const reason = reasons.get(index) ?? (isRefusal ? told.detail ?? `status ${status}` : null);
      if (reason === null) sent.accepted.push(event);
      else sent.rejected.push({ event, reason });
    });
    if (sent.rejected.length > 0) warn("the collector has rejected events", sent.rejected);
    most = Math.min(BATCH_EVENTS, most * 2);
    failures = notBefore = spared = refusals[kind] = 0;
    // What fails there is the page's, and shall be seen as such.
    if (api.onsent) setTimeout(() => api.onsent(sent));
    return true;
  }

  function retry(after) {
    const backoff = Math.min(1000 * 2 ** failures++, 300e3) * (0.5 + Math.random() / 2);
    const asked = after ? Number(after) * 1000 || Date.parse(after) - Date.now() : 0;
    const wait = Math.min(Math.max(backoff, asked || 0), 3600e3);
    notBefore = Date.now() + wait;
    if (asked > 0) spared = notBefore;
    // What was due before the answer came has to wait, too.
    due = Infinity;
    schedule(wait);
    return false;
  }

  // What is reported.

  const counted = new Set();

  function keyOf({ request_id, video_id }) {
    return request_id && video_id ? JSON.stringify([request_id, video_id]) : null;
  }

  /** What an event says of a tile. */
  function fields({ dataset: { requestId, videoId, row, position, code } }) {
    const number = (text) => (text && !isNaN(text) ? Number(text) : text || undefined);
    const place = { row: number(row), position: number(position), code: code || undefined };
    return { request_id: requestId, video_id: videoId, ...place };
  }

  /** Of an element in a tile, or of an object that has the fields of an event. */
  function tileOf(target) {
    const tile = target instanceof Element ? target.closest(TILES) : target;
    const of = tile instanceof Element ? fields(tile) : tile;
    if (of && keyOf(of)) return of;
    warn("this is no tile, nor in one", target);
    return null;
  }

  /** Counts the impression of a tile at once; whether it is a new one. */
  function seen(target) {
    const tile = tileOf(target);
    if (!tile || counted.has(keyOf(tile))) return false;
    counted.add(keyOf(tile));
    // Doubles are harmless, a set that grows for ever is not.
    if (counted.size > 20000) counted.delete(counted.values().next().value);
    keep("impressions", { ...attributes, ...tile, ts: Date.now() });
    schedule(COLLECT_MS);
    return true;
  }

  /** Sends a play of a tile, after its impression. */
  function play(target, extra) {
    const tile = tileOf(target);
    if (!tile) return false;
    seen(tile);
    keep("plays", { ...attributes, ...extra, ...tile, ts: Date.now() });
    schedule(0);
    return true;
  }

  // Who sees what.

  /** Tiles that are not counted yet: element -> { key, since, checked }. */
  const tiles = new Map();
  /** Those of them that have to be looked at again. */
  const waiting = new Set();
  const observer = new IntersectionObserver(look, { threshold: [0, 0.3, 0.5] });
  let [ticker, tickAt] = [0, Infinity];

  function isShown() {
    return document.visibilityState === "visible";
  }

  /** Judges tiles by what the browser has measured in this frame. */
  function look(entries) {
    for (const { target, time, isIntersecting, boundingClientRect, intersectionRect } of entries) {
      const tile = tiles.get(target);
      if (!tile) continue;
      const [area, inside] = [boundingClientRect, intersectionRect].map((r) => r.width * r.height);
      const { width, height } = boundingClientRect;
      const half = (Math.min(width, innerWidth) * Math.min(height, innerHeight)) / 2;
      const share = area * preset.share(area);
      // Rounding is no reason.
      const needed = Math.min(share, half) * 0.999;
      const isIn = isIntersecting && area > 0 && inside >= needed;
      // Browsers tell when shares are crossed, but neither half of what fits nor what covers.
      if (isIn || (isIntersecting && half < share)) waiting.add(target);
      else waiting.delete(target);
      const isSeen = isIn && isShown() && isBare(target, intersectionRect, needed / inside);
      if (!isSeen) tile.since = null;
      else if (tile.since === null || time - tile.checked > GAP_MS) tile.since = time;
      else if (time - tile.since >= preset.ms) seen(target), forget(target);
      tile.checked = time;
    }
    plan();
  }

  /** Whether nothing stands over the element in such a share of a rectangle. */
  function isBare(element, { left, top, width, height }, share) {
    const properties = { opacityProperty: true, visibilityProperty: true };
    if (element.checkVisibility?.(properties) === false) return false;
    const { style } = element;
    const { pointerEvents, display } = getComputedStyle(element);
    if (display === "inline" && element.matches("a, span")) {
      warn("an inline tile is measured by its line of text", element);
    }
    // Points hit only what may be pointed at, which dialogs may forbid for a whole page.
    const isMute = pointerEvents === "none";
    const own = [style.getPropertyValue(POINTABLE), style.getPropertyPriority(POINTABLE)];
    if (isMute) style.setProperty(POINTABLE, "auto", "important");
    let needed = share * POINTS ** 2;
    for (let point = 0; needed > 0 && point < POINTS ** 2; point++) {
      const x = left + (width * ((point % POINTS) + 0.5)) / POINTS;
      const y = top + (height * (Math.floor(point / POINTS) + 0.5)) / POINTS;
      if (element.contains(document.elementFromPoint(x, y))) needed--;
    }
    if (isMute) style.setProperty(POINTABLE, ...own);
    return needed <= 0;
  }

  /** Looks again soon, or when the first of those that wait may be complete. */
  function plan() {
    if (waiting.size === 0 || !isShown()) return;
    const now = performance.now();
    const dueAt = ({ since }) => (since === null ? Infinity : since + preset.ms);
    const at = Math.min(now + CHECK_MS, ...[...waiting].map((one) => dueAt(tiles.get(one))));
    if (at >= tickAt) return;
    clearTimeout(ticker);
    tickAt = at;
    ticker = setTimeout(tick, at - now);
  }

  /** What is observed anew is measured anew, with the next frame. */
  function tick() {
    tickAt = Infinity;
    for (const element of waiting) observer.unobserve(element), observer.observe(element);
  }

  function forget(element) {
    observer.unobserve(element);
    tiles.delete(element);
    waiting.delete(element);
  }

  /** An element was added, removed or changed: what is of a new request begins anew. */
  function refresh(element) {
    const key = element.isConnected && element.matches(TILES) ? keyOf(fields(element)) : null;
    if (tiles.get(element)?.key === key) return;
    forget(element);
    if (key === null || counted.has(key)) return;
    tiles.set(element, { key, since: null, checked: 0 });
    observer.observe(element);
  }

  function refreshIn(root) {
    if (root instanceof Element) refresh(root);
    root.querySelectorAll?.(TILES).forEach(refresh);
  }

  new MutationObserver((changes) => {
    for (const { type, target, addedNodes, removedNodes } of changes) {
      if (type === "attributes") refresh(target);
      else [...addedNodes, ...removedNodes].forEach(refreshIn);
    }
  }).observe(document, {
    subtree: true,
    childList: true,
    attributeFilter: ["data-video-id", "data-request-id"],
  });

  function onClick({ type, button, target }) {
    // The middle button opens a link; the right one only a menu.
    if (type === "auxclick" && (button !== 1 || !target.closest?.("a[href]"))) return;
    if (target.closest?.("[data-play]")) play(target);
    else if (target.closest?.(TILES)) seen(target);
  }

  // Coming and going.

  /** Perhaps the last moment: nobody waits for other tabs, and a request may outlive the page. */
  function leave(send) {
    if (Date.now() < notBefore) return;
    // All of them together may have 64 KiB: plays, which are few, come first.
    for (const kind of [...KINDS].reverse()) {
      const batch = pick(kind);
      if (batch.length > 0) send(kind, batch);
    }
  }

  /** Nobody hears whether a beacon arrives: all stays stored, and a later page sends it again. */
  function beacon(kind, batch) {
    const isTaken = navigator.sendBeacon(...request(kind, batch));
    if (isTaken) batch.forEach(([key]) => flying.add(key));
  }

  function onHide() {
    // A beacon carries cookies and is never answered: only where requests do not outlive pages.
    leave("keepalive" in Request.prototype ? post : beacon);
  }

  function onVisibility() {
    clearTimeout(ticker);
    tickAt = Infinity;
    for (const tile of tiles.values()) tile.since = null;
    if (isShown()) tick(), schedule(0);
    else leave(post);
  }

  function onReturn({ persisted }) {
    if (!persisted) return;
    flying.clear();
    schedule(0);
  }

  function onOnline() {
    failures = 0;
    notBefore = spared;
    if (Date.now() < spared) schedule(0);
    else flush();
  }

  const api = { play, seen, flush, onsent: early?.onsent };
  window.marquee = api;
  document.addEventListener("click", onClick, true);
  document.addEventListener("auxclick", onClick, true);
  document.addEventListener("visibilitychange", onVisibility);
  addEventListener("online", onOnline);
  addEventListener("pagehide", onHide);
  addEventListener("pageshow", onReturn);
  refreshIn(document);
  schedule(0);
})();
