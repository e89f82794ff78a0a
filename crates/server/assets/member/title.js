// The page of a title: a play, and something to look at while it plays.

const stage = document.querySelector("article.stage");
if (stage) begin();

function begin() {
  const canvas = document.getElementById("screen");
  const play = document.getElementById("play");
  const number = Number(stage.dataset.number);
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  let episode = document.querySelector(".episode")?.dataset.episode ?? null;
  let from = 0;
  carry(play);
  draw(canvas, number, 0);

  play.addEventListener("click", (event) => {
    event.preventDefault();
    if (from) return stop();
    const extra = { duration_s: 60, ...(episode && { episode }) };
    globalThis.marquee?.play?.(play, extra);
    remember(play.dataset.videoId, stage.dataset.name);
    from = performance.now();
    play.lastChild.textContent = " Pause";
    play.firstElementChild.textContent = "❚❚";
    if (calm) draw(canvas, number, 4_000);
    else requestAnimationFrame(function frame(now) {
      if (!from) return;
      draw(canvas, number, now - from);
      requestAnimationFrame(frame);
    });
  });

  function stop() {
    from = 0;
    play.lastChild.textContent = " Play";
    play.firstElementChild.textContent = "▶";
  }

  for (const button of document.querySelectorAll(".episode")) {
    button.setAttribute("aria-pressed", String(button.dataset.episode === episode));
    button.addEventListener("click", () => {
      episode = button.dataset.episode;
      for (const other of document.querySelectorAll(".episode")) {
        other.setAttribute("aria-pressed", String(other === button));
      }
      if (from) stop();
      play.click();
    });
  }
}

/** The tile that brought the visitor here: its play belongs to that request. */
function carry(play) {
  const key = "marquee-demo:tile";
  let tile = null;
  try {
    tile = JSON.parse(sessionStorage.getItem(key) ?? "null");
  } catch {
    // Not ours: the page goes on without.
  }
  if (tile?.videoId === play.dataset.videoId) Object.assign(play.dataset, tile);
}

function remember(id, name) {
  const key = "marquee-demo:watched";
  try {
    const watched = JSON.parse(localStorage.getItem(key) ?? "[]").filter((title) => title.id !== id);
    localStorage.setItem(key, JSON.stringify([{ id, name }, ...watched].slice(0, 24)));
  } catch {
    // A browser that keeps nothing: it plays all the same.
  }
}

/** A slow landscape of lights, another one for each title. */
function draw(canvas, number, time) {
  const pen = canvas.getContext("2d");
  const { width, height } = canvas;
  const hue = (number * 47) % 360;
  const sky = pen.createLinearGradient(0, 0, 0, height);
  sky.addColorStop(0, `hsl(${(hue + 280) % 360} 50% ${12 + 4 * Math.sin(time / 5000)}%)`);
  sky.addColorStop(1, `hsl(${hue} 60% ${38 + 8 * Math.sin(time / 7000)}%)`);
  pen.fillStyle = sky;
  pen.fillRect(0, 0, width, height);
  for (let light = 0; light < 40; light++) {
    const seed = (light * 7919 + number * 104729) % 9973;
    const depth = 0.3 + (seed % 100) / 100;
    const x = (seed * 13 + (time / 30) * depth) % (width + 100) - 50;
    const y = (seed * 29) % (height * 0.7);
    pen.fillStyle = `hsl(${(hue + seed) % 360} 80% 76% / ${0.25 + 0.3 * Math.sin(time / 900 + seed)})`;
    pen.beginPath();
    pen.arc(x, y, 4 + depth * 10, 0, 7);
    pen.fill();
  }
  for (let layer = 0; layer < 3; layer++) {
    pen.fillStyle = `hsl(${hue} 40% ${26 - layer * 8}%)`;
    pen.beginPath();
    pen.moveTo(0, height);
    for (let x = 0; x <= width; x += 16) {
      const at = x / (190 - layer * 40) + (time / 9000) * (layer + 1) + number;
      pen.lineTo(x, height * (0.62 + layer * 0.11) + 46 * Math.sin(at) + 18 * Math.sin(at * 2.7));
    }
    pen.lineTo(width, height);
    pen.fill();
  }
}
