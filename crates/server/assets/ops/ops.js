// The operator's page: puts sections that have changed in their places, and sends what is pressed.
// Sections are HTML that the server has made and escaped; all else is set as text.

const said = document.getElementById("said");

function say(text, mood = "") {
  if (!said) return;
  said.textContent = text;
  said.dataset.mood = mood;
}

// The token of a link (`/ops#token=...`) is given for a cookie; what follows `#` reaches no log.
const fragment = new URLSearchParams(location.hash.slice(1));
if (fragment.has("token")) {
  const body = new URLSearchParams({ token: fragment.get("token") });
  history.replaceState(null, "", location.pathname + location.search);
  const answer = await fetch("/ops/login", { method: "POST", body, redirect: "manual" });
  if (answer.type === "opaqueredirect") location.reload();
  else say("The token of the link is not the one of this server: it may be of another start.", "bad");
}

// While something in a section is being read or used it is left as it is.
function isInUse(element) {
  const selection = document.getSelection();
  const isSelected = selection && !selection.isCollapsed && element.contains(selection.anchorNode);
  const focused = document.activeElement;
  return isSelected || (focused !== element && element.contains(focused));
}

/** Whether it is in its place. */
function place(name, html) {
  const element = document.getElementById(name);
  if (!element) return true;
  if (isInUse(element)) return false;
  const open = [...element.querySelectorAll("details[open]")].map((one) => one.id);
  const parsed = new DOMParser().parseFromString(html, "text/html");
  for (const id of open) parsed.getElementById(id)?.setAttribute("open", "");
  const left = element.scrollLeft;
  element.replaceChildren(...parsed.body.childNodes);
  element.scrollLeft = left;
  return true;
}

const AGAIN_MS = 5000;
let isLost = false;
// What was in use when it came: it is told only once.
const waiting = new Map();

function listen() {
  const stream = new EventSource("/ops/stream" + location.search);
  stream.addEventListener("sections", (event) => {
    if (isLost) say("");
    isLost = false;
    for (const [name, html] of Object.entries(JSON.parse(event.data))) waiting.set(name, html);
    for (const [name, html] of waiting) if (place(name, html)) waiting.delete(name);
  });
  stream.addEventListener("trouble", (event) => { isLost = true; say(event.data, "bad"); });
  stream.addEventListener("error", () => {
    isLost = true;
    say("The server does not answer. What is shown is what it said last; trying again.", "bad");
    // Browsers try again by themselves, unless the answer was a refusal.
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, AGAIN_MS);
  });
}
if (document.getElementById("summary")) listen();

async function post(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const json = await answer.json();
  say(answer.ok ? json.said : json.detail, answer.ok ? "" : "bad");
  return answer.ok;
}

for (const form of document.querySelectorAll("form[data-post]")) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const body = Object.fromEntries(new FormData(form));
    if (await post(form.dataset.post, body).catch(unreachable) && form.contains(document.getElementById("note"))) form.reset();
  });
}
for (const button of document.querySelectorAll("button[data-post]")) {
  button.addEventListener("click", () =>
    post(button.dataset.post, JSON.parse(button.dataset.body)).catch(unreachable));
}

function unreachable() {
  say("The server does not answer; nothing was changed.", "bad");
}

// The crash button. All cells before and after: sets only grow, so no count may be lower than it was.
async function cells() {
  const found = new Map();
  let after = "";
  do {
    const answer = await fetch("/v1/trends?slices=all&sort=video&limit=10000" + after);
    if (!answer.ok) throw new Error(`trends: ${answer.status}`);
    const page = await answer.json();
    for (const cell of page.cells) {
      const key = JSON.stringify([cell.video, cell.epoch_start_ms, cell.epoch_ms, cell.slice]);
      found.set(key, [cell.impressions, cell.plays]);
    }
    after = page.next ? "&after=" + encodeURIComponent(page.next) : "";
  } while (after);
  return found;
}

async function ready() {
  for (;;) {
    const answer = await fetch("/readyz").catch(() => null);
    if (answer?.ok) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

const crash = document.getElementById("crash");
const log = document.getElementById("crash-log");
function note(start, text, mood = "") {
  const item = document.createElement("li");
  const strong = document.createElement("strong");
  strong.textContent = start + " ";
  item.append(strong, text);
  if (mood) item.dataset.mood = mood;
  log.append(item);
}

crash?.addEventListener("click", async () => {
  crash.disabled = true;
  log.replaceChildren();
  try {
    const before = await cells();
    note("Before:", `${before.size} cells.`);
    const start = performance.now();
    const told = await fetch("/ops/api/demo/crash", { method: "POST" }).catch(() => null);
    if (told && !told.ok) {
      note("Refused:", (await told.json()).detail, "bad");
      return;
    }
    // The old process may still answer for a moment; then requests wait for the new one.
    await new Promise((resolve) => setTimeout(resolve, 300));
    await ready();
    note("Killed and back:", `ready again after ${Math.round(performance.now() - start)} ms.`);
    const after = await cells();
    let grown = 0;
    const fallen = [];
    for (const [key, [impressions, plays]] of before) {
      const now = after.get(key) ?? [0, 0];
      if (now[0] < impressions || now[1] < plays) fallen.push(key);
      else if (now[0] > impressions || now[1] > plays) grown += 1;
    }
    if (fallen.length) note("Lower than before:", `${fallen.length} cells, first ${fallen[0]}. Please report it.`, "bad");
    else note("No count is lower:", `${before.size - grown} are the same, ${grown} have grown since, ${after.size - before.size} are new.`);
  } catch (error) {
    note("Could not compare:", String(error), "bad");
  } finally {
    crash.disabled = false;
  }
});
