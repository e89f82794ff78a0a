// The live page: asks for the newest epoch's cells and for the lanes' status once a second.
//
// Video ids come from strangers: they are only ever put into the page as text, and kept in Maps,
// never as names of properties.
"use strict";

const ROWS = 20;
const PERIOD_MS = 1000;
const TIMEOUT_MS = 5000;
/** How long a row shows that it moved. */
const MOVE_SHOWN_MS = 5000;
/** Screen readers hear of the leader at most this often. */
const SPOKEN_EVERY_MS = 60000;

const $ = (id) => document.getElementById(id);
const whole = new Intl.NumberFormat();
const percent = new Intl.NumberFormat(undefined, {
  style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1,
});
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const clockSeconds = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const day = new Intl.DateTimeFormat(undefined, { dateStyle: "full" });
const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** What is shown now. */
const shown = {
  epoch: null,
  /** video -> { row, parts, cell, rank, moved } */
  rows: new Map(),
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

function showEpoch(cell) {
  const start = new Date(cell.epoch_start_ms);
  const end = new Date(cell.epoch_start_ms + cell.epoch_ms);
  const today = new Date().toDateString() === start.toDateString();
  const label = `${clock.format(start)} – ${clock.format(end)}`;
  setText($("epoch"), today ? label : `${day.format(start)}, ${label}`);
  $("epoch").title = `${start.toISOString()} to ${end.toISOString()} (UTC)`;
  const words = [cell.sealed ? "sealed" : "counting"];
  if (!cell.complete) words.push("incomplete");
  setText($("seal"), words.join(", "));
}

function makeRow(cell) {
  const row = make("tr");
  const rank = make("td", "rank");
  const place = make("span", "", "");
  const move = make("span", "move", "");
  rank.append(place, move);
  const video = make("td", "video");
  const name = make("bdi", "", readable(cell.video));
  video.append(name);
  video.title = readable(cell.video);
  const impressions = make("td", "number");
  const plays = make("td", "number");
  const rate = make("td", "rate");
  const box = make("div", "rate-box");
  const rateText = make("span", "", "");
  const bar = make("div", "bar");
  bar.setAttribute("aria-hidden", "true");
  const fill = make("span");
  bar.append(fill);
  box.append(rateText, bar);
  rate.append(box);
  row.append(rank, video, impressions, plays, rate);
  return { row, parts: { place, move, impressions, plays, rateText, fill }, cell: null, rank: null, moved: 0 };
}

function flash(element) {
  if (calm.matches || !element.animate) return;
  const color = getComputedStyle(document.documentElement).getPropertyValue("--flash");
  element.animate([{ backgroundColor: color }, { backgroundColor: "transparent" }], 900);
}

function takeRate(cell) {
  return cell.impressions > 0 ? cell.plays / cell.impressions : null;
}

/** The end of the bars: a round rate at or above the highest one. */
function rateScale(cells) {
  const highest = Math.max(0, ...cells.map((cell) => takeRate(cell) ?? 0));
  return [0.05, 0.1, 0.25, 0.5, 1].find((end) => highest <= end) ?? highest;
}

function fillRow(entry, cell, rank, scale, now) {
  const { parts, cell: before } = entry;
  setText(parts.place, String(rank));
  setText(parts.impressions, whole.format(cell.impressions));
  setText(parts.plays, whole.format(cell.plays));
  if (before && before.impressions !== cell.impressions) flash(parts.impressions);
  if (before && before.plays !== cell.plays) flash(parts.plays);
  const rate = takeRate(cell);
  setText(parts.rateText, rate === null ? "–" : percent.format(rate));
  parts.fill.style.transform = `scaleX(${rate === null ? 0 : Math.min(1, rate / scale)})`;
  if (entry.rank !== null && entry.rank !== rank) {
    const up = rank < entry.rank;
    setText(parts.move, `${up ? "▲" : "▼"}${Math.abs(entry.rank - rank)}`);
    parts.move.dataset.move = up ? "up" : "down";
    parts.move.setAttribute("aria-label", `${up ? "up" : "down"} ${Math.abs(entry.rank - rank)}`);
    entry.moved = now;
  } else if (entry.moved && now - entry.moved > MOVE_SHOWN_MS) {
    setText(parts.move, "");
    parts.move.removeAttribute("aria-label");
    entry.moved = 0;
  }
  entry.cell = cell;
  entry.rank = rank;
}

/** Lets rows glide from where they were to where they are now. */
function glide(tops) {
  for (const { row } of shown.rows.values()) {
    const before = tops.get(row);
    const way = before === undefined ? 0 : before - row.offsetTop;
    if (way) row.animate([{ transform: `translateY(${way}px)` }, { transform: "none" }], { duration: 350, easing: "ease-out" });
  }
}

function showCells(cells) {
  const now = Date.now();
  const epoch = cells[0].epoch_start_ms;
  const isNewEpoch = epoch !== shown.epoch;
  if (isNewEpoch) {
    $("cells").replaceChildren();
    shown.rows.clear();
    shown.epoch = epoch;
  }
  showEpoch(cells[0]);
  const moves = !calm.matches && !isNewEpoch && Boolean(Element.prototype.animate);
  const tops = new Map();
  if (moves) for (const { row } of shown.rows.values()) tops.set(row, row.offsetTop);
  const scale = rateScale(cells);
  const rows = new Map();
  cells.forEach((cell, place) => {
    const entry = shown.rows.get(cell.video) ?? makeRow(cell);
    fillRow(entry, cell, place + 1, scale, now);
    rows.set(cell.video, entry);
  });
  shown.rows = rows;
  arrange([...rows.values()].map((entry) => entry.row));
  if (moves) glide(tops);
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
  setText($("lag"), whole.format(status.lag));
  $("lag").title = "records in the log that are not counted yet";
  setText($("watermark"), time(status.watermark_ms));
  $("watermark").title = status.watermark_ms === null
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
  return `curl ${location.origin}${path} -d ${quoted(JSON.stringify(record))}`;
}

/** The first lesson stays as it was first shown, so that it can be selected and copied. */
function showFirst(status) {
  if (!$("first").hidden) return;
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
  $("state").dataset.state = state;
  setText($("state-text"), words);
  if (state !== shown.state && state !== "waiting") setText($("spoken"), words);
  shown.state = state;
  $("trends").classList.toggle("is-stale", state === "stale");
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
    showCells(cells);
  } else {
    showFirst(status);
  }
}

function showFailure(error) {
  const reason = error instanceof Unreachable ? "The server does not answer" : `Something is wrong: ${error.message}`;
  const since = shown.answeredAt === null ? "" : ` These numbers are from ${time(shown.answeredAt)}.`;
  setText($("stale"), `${reason}.${since} Trying again.`);
  $("stale").hidden = false;
  setState("stale", "no connection");
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
