// The loop, live: what this visitor saw or played, and how long it took until it counted.
//
// An event is accepted when the collector has made it durable, counted when the lane has committed a
// position behind it, and in the score when the recommender has read the store after that. What other
// members did meanwhile is in the score, too.

const SHOWN = 6;
const GIVE_UP_MS = 30_000;
const list = document.getElementById("loop-list");
const waiting = new Set();
let timer = 0;

const before = globalThis.marquee?.onsent;
globalThis.marquee = Object.assign(globalThis.marquee ?? {}, { onsent: sent });

/** Called by the script for each request to the collector. */
function sent(told) {
  before?.(told);
  const now = Date.now();
  for (const event of told.accepted.slice(-SHOWN)) {
    const item = { kind: told.kind, event, positions: told.positions ?? [], from: event.ts, accepted: now };
    item.place = show(item);
    // What the recommender says before it can know of this event.
    item.why = why(event.video_id).catch(() => null);
    waiting.add(item);
  }
  timer ||= setTimeout(look, 60);
}

function show(item) {
  list.querySelector(".empty")?.remove();
  const place = document.createElement("li");
  const name = document.createElement("strong");
  name.textContent = `${item.kind === "plays" ? "Played" : "Saw"} ${nameOf(item.event.video_id)}`;
  const steps = document.createElement("dl");
  steps.className = "steps";
  place.append(name, steps);
  item.steps = steps;
  step(item, "accepted, durable", `${item.accepted - item.from} ms`);
  list.prepend(place);
  while (list.children.length > SHOWN) list.lastElementChild.remove();
  return place;
}

function step(item, what, value) {
  const term = document.createElement("dt");
  const text = document.createElement("dd");
  term.textContent = what;
  text.textContent = value;
  item.steps.append(term, text);
}

function nameOf(video) {
  const tile = document.querySelector(`[data-video-id="${CSS.escape(video)}"] .name`);
  return tile?.textContent || document.querySelector("article.stage")?.dataset.name || video;
}

async function json(path) {
  const answer = await fetch(path, { cache: "no-store" });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

async function look() {
  timer = 0;
  try {
    const status = await json("/v1/status");
    for (const item of waiting) await follow(item, status.lanes);
  } catch {
    // The processor is away: what was accepted is in the log, and is counted when it is back.
  }
  for (const item of waiting) if (Date.now() - item.accepted > GIVE_UP_MS) waiting.delete(item);
  if (waiting.size > 0) timer = setTimeout(look, 120);
}

/** Whether lanes that stand there have all of an item. */
function have(lanes, { positions }) {
  const of = new Map(lanes.map((lane) => [lane.lane, lane.next_offsets]));
  return positions.every((p) => of.get(p.lane)?.[p.topic] >= p.offset);
}

async function follow(item, lanes) {
  const now = Date.now();
  if (!item.counted && have(lanes, item)) {
    item.counted = now;
    step(item, "counted", `${now - item.from} ms`);
  }
  if (!item.counted) return;
  const [before, after] = [await item.why, await why(item.event.video_id)];
  // What is ranked is at most half a second old.
  if (!have(after.lanes, item)) return;
  const percent = (score) => `${(100 * score).toFixed(3)} %`;
  step(item, "in the score", `${Date.now() - item.from} ms`);
  const isChanged = before !== null && after.score !== before.score;
  const scores = isChanged ? `${percent(before.score)} → ${percent(after.score)}` : percent(after.score);
  step(item, `place ${after.rank} of ${after.of}`, scores);
  item.place.classList.add("done");
  waiting.delete(item);
}

function why(video) {
  return json(`/member/why/${encodeURIComponent(video)}`);
}

// A tile that is followed takes its request along: the play on the next page belongs to it.
document.addEventListener("click", carryOver);
document.addEventListener("keydown", (event) => event.key === "Enter" && carryOver(event));

function carryOver(event) {
  const tile = event.target.closest?.("a.tile");
  try {
    if (tile) sessionStorage.setItem("marquee-demo:tile", JSON.stringify({ ...tile.dataset }));
  } catch {
    // A browser that keeps nothing: the play belongs to the request of the next page.
  }
}
