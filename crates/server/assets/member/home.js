// The home page: keys move between tiles, rows get a new order where nobody looks, and a tile says why
// it is where it is.

const REFRESH_MS = 10_000;
const rows = () => [...document.querySelectorAll(".row:not([hidden])")];
const tilesOf = (row) => [...row.querySelectorAll("a.tile")];

// --- Keys: one tile of a row is in the order of tabs, arrows go to the others. ---

document.addEventListener("keydown", (event) => {
  const tile = event.target.closest?.("a.tile");
  if (!tile || event.altKey || event.ctrlKey || event.metaKey) return;
  const row = tile.closest(".row");
  const tiles = tilesOf(row);
  const place = tiles.indexOf(tile);
  const all = rows();
  const other = (step) => {
    const next = all[all.indexOf(row) + step];
    const there = next && tilesOf(next);
    return there?.[Math.min(place, there.length - 1)];
  };
  const to = {
    ArrowRight: () => tiles[place + 1],
    ArrowLeft: () => tiles[place - 1],
    ArrowDown: () => other(1),
    ArrowUp: () => other(-1),
    Home: () => tiles[0],
    End: () => tiles.at(-1),
  }[event.key]?.();
  if (event.key === "?") return void explain(tile);
  if (!to) return;
  event.preventDefault();
  focusOn(to);
});

function focusOn(tile) {
  for (const other of tilesOf(tile.closest(".row"))) other.tabIndex = other === tile ? 0 : -1;
  tile.focus({ preventScroll: true });
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  tile.scrollIntoView({ block: "nearest", inline: "nearest", behavior: calm ? "auto" : "smooth" });
}

// --- A new order: tiles that are visible or focused never move by themselves. ---

const pending = new Map();

async function refresh() {
  if (document.hidden) return;
  let answer;
  try {
    answer = await fetch("/member/rows", { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.status);
    stale("");
  } catch {
    stale("The recommender does not answer. What you see stays, and what you do is kept until it is back.");
    return;
  }
  for (const fresh of (await answer.json()).rows) {
    const row = document.querySelector(`.row[data-row="${fresh.row}"]`);
    if (!row) continue;
    const order = tilesOf(row).map((tile) => tile.dataset.videoId).join();
    if (order === fresh.tiles.map((tile) => tile.video).join()) {
      // What was new a moment ago is old again.
      pending.delete(row);
      row.querySelector(".fresh").hidden = true;
      continue;
    }
    if (isLookedAt(row)) {
      pending.set(row, fresh);
      row.querySelector(".fresh").hidden = false;
    } else {
      apply(row, fresh);
    }
  }
}

function isLookedAt(row) {
  const box = row.getBoundingClientRect();
  return row.contains(document.activeElement) || (box.bottom > 0 && box.top < innerHeight);
}

function apply(row, fresh) {
  const list = row.querySelector(".tiles");
  const known = new Map([...list.children].map((item) => [item.querySelector("a.tile").dataset.videoId, item]));
  const template = list.firstElementChild;
  const items = fresh.tiles.map((tile, position) => {
    const item = known.get(tile.video) ?? made(template, tile);
    const link = item.querySelector("a.tile");
    Object.assign(link.dataset, { requestId: fresh.request_id, position });
    if (tile.code) link.dataset.code = tile.code;
    else delete link.dataset.code; // that of another request
    link.tabIndex = position === 0 ? 0 : -1;
    return item;
  });
  list.replaceChildren(...items);
  list.scrollLeft = 0;
  row.dataset.request = fresh.request_id;
  row.querySelector(".fresh").hidden = true;
  pending.delete(row);
}

function made(template, tile) {
  const item = template.cloneNode(true);
  const link = item.querySelector("a.tile");
  link.href = `/title/${encodeURIComponent(tile.video)}`;
  link.dataset.videoId = tile.video;
  item.querySelector("img").src = `/poster/${encodeURIComponent(tile.video)}.svg`;
  item.querySelector(".name").textContent = tile.name;
  item.querySelector(".why").setAttribute("aria-label", `Why is ${tile.name} here?`);
  return item;
}

function stale(words) {
  const place = document.getElementById("stale");
  place.hidden = !words;
  place.textContent = words;
}

document.addEventListener("click", (event) => {
  const fresh = event.target.closest(".fresh");
  if (fresh) {
    const row = fresh.closest(".row");
    apply(row, pending.get(row));
    tilesOf(row)[0]?.focus();
  }
  const why = event.target.closest(".why");
  if (why) explain(why.parentElement.querySelector("a.tile"));
});

setInterval(refresh, REFRESH_MS);
document.addEventListener("visibilitychange", () => document.hidden || refresh());

// --- Why is this here. ---

async function explain(tile) {
  const box = document.createElement("dialog");
  const title = document.createElement("h2");
  title.textContent = `Why ${tile.querySelector(".name").textContent}?`;
  box.setAttribute("aria-labelledby", (title.id = "why-title"));
  const text = document.createElement("p");
  text.textContent = "One moment …";
  const close = document.createElement("button");
  close.textContent = "Close";
  close.addEventListener("click", () => box.close());
  box.append(title, text, close);
  box.addEventListener("close", () => (box.remove(), tile.focus()));
  document.body.append(box);
  box.showModal();
  try {
    const answer = await fetch(`/member/why/${encodeURIComponent(tile.dataset.videoId)}`, { cache: "no-store" });
    const why = await answer.json();
    const percent = (share) => (share == null ? "nothing counted yet" : `${(100 * share).toFixed(2)} %`);
    text.textContent = `Place ${why.rank_in_genre} in ${why.genre}, ${why.rank} of all ${why.of}. Titles stand in the order of their take rates lately, each drawn to the mean as long as few have seen it.`;
    const facts = document.createElement("dl");
    for (const [name, value] of [
      ["Requests that showed it", why.impressions.toLocaleString("en")],
      ["Requests that played it", why.plays.toLocaleString("en")],
      ["Its score", percent(why.score)],
      ["Mean of all titles", percent(why.mean)],
    ]) {
      const term = document.createElement("dt");
      const fact = document.createElement("dd");
      term.textContent = name;
      fact.textContent = value;
      facts.append(term, fact);
    }
    close.before(facts);
  } catch {
    text.textContent = "The recommender does not answer now. Try again in a moment.";
  }
}

// --- Continue watching: known to this browser alone. ---

const row = document.getElementById("continue");
function watched() {
  try {
    return JSON.parse(localStorage.getItem("marquee-demo:watched") ?? "[]").slice(0, 12);
  } catch {
    return []; // a browser that keeps nothing
  }
}
for (const { id, name } of watched()) {
  const item = document.createElement("li");
  const link = document.createElement("a");
  const image = document.createElement("img");
  const text = document.createElement("span");
  Object.assign(link, { className: "tile", href: `/title/${encodeURIComponent(id)}`, tabIndex: row.querySelector("a") ? -1 : 0 });
  Object.assign(image, { src: `/poster/${encodeURIComponent(id)}.svg`, alt: "", width: 200, height: 300 });
  Object.assign(text, { className: "name", textContent: name });
  link.append(image, text);
  item.append(link);
  row.querySelector(".tiles").append(item);
  row.hidden = false;
}
