// The live page: asks for the newest epoch's cells and for the lanes' status once a second.
//
// Video ids come from strangers: they are only ever put into the page as text, and kept in Maps,
// never as names of properties.
"use strict";

const ROWS = 20;
const PERIOD_MS = 1000;
const TIMEOUT_MS = 5000;
/** Numbers change every second, places only this often: a table that dances cannot be read. */
const PLACES_EVERY_MS = 5000;
/** Where this many rows or more change at once, a highlight would say nothing. */
const MANY = 6;
/** Screen readers hear of the leader at most this often. */
const SPOKEN_EVERY_MS = 60000;

const $ = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat();
const percent = new Intl.NumberFormat(undefined, {
  style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1,
});
const percentWhole = new Intl.NumberFormat(undefined, { style: "percent" });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const clockSeconds = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "full" });
const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** What is shown now. */
const shown = {
  epoch: null,
  /** video -> { row, parts, cell, rank } */
  rows: new Map(),
  placedAt: 0,
  scale: 0,
  state: "waiting",
  answeredAt: null,
  spokenAt: 0,
  leader: null,
};

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Ids may hold line breaks, control characters and marks that turn the reading direction. */
function readable(id) {
  return id
    .replace(/[\u0000-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)))
    .replace(/[\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/g, "\ufffd")
    .replace(/^\s+$/, (blank) => "\u2423".repeat(blank.length));
}

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

class Unreachable extends Error {}

async function ask(path) {
  const options = { signal: AbortSignal.timeout(TIMEOUT_MS), cache: "no-store" };
  const response = await fetch(path, options).catch((error) => {
    throw new Unreachable(error.message);
  });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.detail || `the server answered ${response.status}`);
  return body;
}

// Cells ----------------------------------------------------------------------------------------

/** What may still come: whole minutes, so that it does not tick. */
function progress(cell, now) {
  const left = cell.epoch_start_ms + cell.epoch_ms - now;
  if (cell.sealed) return "sealed";
  if (left <= 0) return "over, open for stragglers";
  return left < 60000 ? "counting, less than a minute left" : `counting, ${Math.ceil(left / 60000)} min left`;
}

function showEpoch(cell, now) {
  const start = new Date(cell.epoch_start_ms);
  const end = new Date(cell.epoch_start_ms + cell.epoch_ms);
  const today = new Date().toDateString() === start.toDateString();
  const label = `${clock.format(start)} – ${clock.format(end)}`;
  setText($("epoch"), today ? label : `${day.format(start)}, ${label}`);
  $("epoch").title = `${start.toISOString()} to ${end.toISOString()} (UTC)`;
  setText($("seal"), `${progress(cell, now)}${cell.complete ? "" : ", incomplete"}`);
  $("seal").title = cell.sealed ? "all that can be in time has been counted" : "these numbers can still grow";
}

/** A part of a table, named aloud: phones lay rows out as grids, which browsers may take for no table. */
function makePart(tag, role, className) {
  const element = make(tag, className);
  element.setAttribute("role", role);
  return element;
}

function makeRow(cell) {
  const row = makePart("tr", "row");
  const rank = makePart("td", "cell", "rank");
  const place = make("span", "", "");
  const move = make("span", "move", "");
  rank.append(place, move);
  move.setAttribute("role", "img");
  const video = makePart("th", "rowheader", "video");
  video.scope = "row";
  video.append(make("bdi", "id", readable(cell.video)));
  video.title = readable(cell.video);
  const impressions = makePart("td", "cell", "number");
  const plays = makePart("td", "cell", "number plays");
  const rate = makePart("td", "cell", "rate");
  const box = make("div", "rate-box");
  const rateText = make("span", "", "");
  const bar = make("div", "bar");
  bar.setAttribute("aria-hidden", "true");
  const fill = make("span");
  bar.append(fill);
  box.append(rateText, bar);
  rate.append(box);
  row.append(rank, video, impressions, plays, rate);
  return { row, parts: { place, move, impressions, plays, rateText, fill }, cell: null, rank: null };
}

/** A changed number is tinted for a moment. */
function flash(elements) {
  if (calm.matches || !Element.prototype.animate) return;
  const color = getComputedStyle(document.documentElement).getPropertyValue("--flash");
  for (const element of elements) element.animate([{ color }, {}], { duration: 900, easing: "ease-in" });
}

function takeRate(cell) {
  return cell.impressions > 0 ? cell.plays / cell.impressions : null;
}

/** The end of the bars: a round rate at or above the highest one, which it does not leave lightly. */
function rateScale(cells) {
  const highest = Math.max(0, ...cells.map((cell) => takeRate(cell) ?? 0));
  const end = [0.02, 0.05, 0.1, 0.2, 0.5, 1].find((end) => highest <= end) ?? highest;
  if (end > shown.scale || highest < 0.8 * end) shown.scale = end;
  return shown.scale;
}

function fillRow(entry, cell, scale) {
  const { parts } = entry;
  setText(parts.impressions, whole.format(cell.impressions));
  setText(parts.plays, whole.format(cell.plays));
  const rate = takeRate(cell);
  setText(parts.rateText, rate === null ? "–" : percent.format(rate));
  parts.fill.style.transform = `scaleX(${rate === null ? 0 : Math.min(1, rate / scale)})`;
  entry.cell = cell;
}

function fillRows(cells) {
  const scale = rateScale(cells);
  setText($("scale"), percentWhole.format(scale));
  const changed = { impressions: [], plays: [] };
  for (const cell of cells) {
    const entry = shown.rows.get(cell.video);
    if (!entry) continue;
    for (const name of Object.keys(changed)) {
      if (entry.cell && entry.cell[name] !== cell[name]) changed[name].push(entry.parts[name]);
    }
    fillRow(entry, cell, scale);
  }
  flash(changed.plays);
  if (changed.impressions.length < MANY) flash(changed.impressions);
}

function placeRow(entry, rank) {
  const { move, place } = entry.parts;
  const by = entry.rank === null ? 0 : entry.rank - rank;
  setText(place, String(rank));
  setText(move, by === 0 ? "" : `${by > 0 ? "▲" : "▼"}${Math.abs(by)}`);
  move.hidden = by === 0;
  move.dataset.move = by > 0 ? "up" : "down";
  move.setAttribute("aria-label", `${by > 0 ? "up" : "down"} ${Math.abs(by)}`);
  entry.rank = rank;
}

/** Lets rows glide from where they were to where they are now. */
function glide(tops) {
  for (const { row } of shown.rows.values()) {
    const before = tops.get(row);
    const way = before === undefined ? 0 : before - row.offsetTop;
    // What rises passes over what falls.
    const zIndex = way > 0 ? 1 : 0;
    if (way) row.animate([{ transform: `translateY(${way}px)`, zIndex }, { transform: "none", zIndex }], { duration: 450, easing: "ease-in-out" });
  }
}

/** Gives every row its place, and says which way it went. */
function place(cells, isNewEpoch) {
  const moves = !calm.matches && !isNewEpoch && Boolean(Element.prototype.animate);
  const tops = new Map();
  if (moves) for (const { row } of shown.rows.values()) tops.set(row, row.offsetTop);
  const rows = new Map();
  cells.forEach((cell, number) => {
    const entry = shown.rows.get(cell.video) ?? makeRow(cell);
    placeRow(entry, number + 1);
    rows.set(cell.video, entry);
  });
  shown.rows = rows;
  arrange([...rows.values()].map((entry) => entry.row));
  if (moves) glide(tops);
}

function showCells(cells, serverNow) {
  const now = Date.now();
  const epoch = cells[0].epoch_start_ms;
  const isNewEpoch = epoch !== shown.epoch;
  if (isNewEpoch) {
    $("cells").replaceChildren();
    shown.rows.clear();
    shown.epoch = epoch;
  }
  showEpoch(cells[0], serverNow);
  // A table that is not full yet shows what is new at once.
  if (isNewEpoch || cells.length !== shown.rows.size || now - shown.placedAt >= PLACES_EVERY_MS) {
    place(cells, isNewEpoch);
    shown.placedAt = now;
  }
  fillRows(cells);
  speak(cells[0], isNewEpoch, now);
}

/** Puts the rows in order, and touches only those that are not where they belong. */
function arrange(rows) {
  const body = $("cells");
  rows.forEach((row, place) => {
    if (body.children[place] !== row) body.insertBefore(row, body.children[place] ?? null);
  });
  while (body.children.length > rows.length) body.lastElementChild.remove();
}

/** Tells screen readers of a new epoch at once and of a new leader now and then, not of counts. */
function speak(leader, isNewEpoch, now) {
  const isNews = isNewEpoch || leader.video !== shown.leader;
  if (!isNews || (!isNewEpoch && now - shown.spokenAt < SPOKEN_EVERY_MS)) return;
  shown.leader = leader.video;
  shown.spokenAt = now;
  const words = isNewEpoch ? `Epoch ${$("epoch").textContent}. ` : "";
  setText($("spoken"), `${words}${readable(leader.video)} leads, plays: ${whole.format(leader.plays)}.`);
}

// Status ---------------------------------------------------------------------------------------

function time(ms) {
  return ms === null || ms === undefined ? "–" : clockSeconds.format(new Date(ms));
}

function showTotals(status) {
  setText($("events"), whole.format(status.totals.events));
  for (const name of ["late", "dead"]) {
    setText($(name), whole.format(status.totals[name]));
    $(name).dataset.alert = status.totals[name] > 0 ? "yes" : "no";
  }
  setText($("duplicates"), whole.format(status.totals.duplicates));
  setText($("lag"), whole.format(status.lag));
  setText($("watermark"), time(status.watermark_ms));
  $("watermark-box").title = status.watermark_ms === null
    ? "not known before enough events of every lane were read"
    : `${new Date(status.watermark_ms).toISOString()} (UTC): event time that all lanes have reached`;
}

function showLanes(lanes) {
  const body = $("lanes");
  while (body.children.length < lanes.length) {
    const row = make("tr");
    const lane = make("th", "", "");
    lane.scope = "row";
    row.append(lane, make("td"), make("td", "number"), make("td", "number"), make("td", "number"));
    body.append(row);
  }
  while (body.children.length > lanes.length) body.lastElementChild.remove();
  lanes.forEach((lane, place) => {
    const [name, state, lag, events, watermark] = body.children[place].children;
    setText(name, String(lane.lane));
    setText(state, lane.ready ? "ready" : "rebuilding");
    state.dataset.lane = lane.ready ? "ready" : "rebuilding";
    setText(lag, whole.format(lane.lag));
    setText(events, whole.format(lane.events));
    setText(watermark, time(lane.watermark_ms));
  });
  const ready = lanes.filter((lane) => lane.ready).length;
  setText($("lanes-summary"), `· ${ready} of ${lanes.length} ready`);
}

function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function command(path, record) {
  return `curl -d ${quoted(JSON.stringify(record, null, 2))} ${location.origin}${path}`;
}

/** The first lesson stays as it was first shown, so that it can be selected and copied. */
function showFirst(status) {
  if (!$("first").hidden) return;
  setText($("epoch"), "Waiting for the first event");
  const { impressions, plays } = status.first;
  setText($("first-impression"), command("/v1/impressions", impressions.record));
  setText($("first-play"), command("/v1/plays", plays.record));
  const asked = [["impressions", impressions], ["plays", plays]].filter(([, kind]) => kind.where);
  const words = asked.map(([name, kind]) => `[${name}] where: ${kind.where}`).join("; ");
  setText($("first-where"), `Add the fields that the configuration asks for: ${words}`);
  $("first-where").hidden = asked.length === 0;
  $("first").hidden = false;
}

// States ---------------------------------------------------------------------------------------

function setState(state, words) {
  document.body.dataset.state = state;
  setText($("state-text"), words);
  if (state !== shown.state && state !== "waiting") setText($("spoken"), words);
  shown.state = state;
}

function showAnswer(status, cells) {
  shown.answeredAt = Date.now();
  $("stale").hidden = true;
  setState(status.ready ? "live" : "rebuilding", status.ready ? "live" : status.reasons[0]);
  showTotals(status);
  showLanes(status.lanes);
  $("trends").hidden = cells.length === 0;
  if (cells.length > 0) {
    $("first").hidden = true;
    showCells(cells, status.now_ms);
  } else {
    showFirst(status);
  }
}

function showFailure(error) {
  const reason = error instanceof Unreachable ? "The server does not answer" : `Something is wrong: ${error.message}`;
  const since = shown.answeredAt === null ? "" : ` These numbers are from ${time(shown.answeredAt)}.`;
  setText($("stale"), `${reason}.${since} Trying again.`);
  $("stale").hidden = false;
  // What is not asked any more is not said any more.
  setText($("seal"), "");
  setState("stale", error instanceof Unreachable ? "no connection" : "no answer");
}

/** The newest epoch that has begun: a client whose clock runs ahead must not hide it. */
async function newestCells(status) {
  const parameters = new URLSearchParams({
    to: String(status.now_ms + 1), epoch_ms: String(status.epochs_ms[0]), limit: String(ROWS),
  });
  const { cells } = await ask(`/v1/trends?${parameters}`);
  return cells.filter((cell) => cell.epoch_start_ms === cells[0].epoch_start_ms);
}

async function refresh() {
  let wait = PERIOD_MS;
  if (!document.hidden) {
    try {
      const status = await ask("/v1/status");
      showAnswer(status, await newestCells(status));
    } catch (error) {
      showFailure(error);
      wait = 2 * PERIOD_MS;
    }
  }
  setTimeout(refresh, wait);
}

refresh();
