// What the checks in this folder share: a browser, a site of some other host, and the cells of the
// real service as the only judge of what was counted.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { chromium } from "playwright-core";

/** No wait in these checks takes a fraction of this. */
const PATIENCE_MS = 30_000;

/** Another marquee.js: to try a change, or that a check notices a fault, without building the service. */
const OTHER_SCRIPT = process.env.MARQUEE_SCRIPT && readFileSync(process.env.MARQUEE_SCRIPT);

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Asks until the answer is not false; `what` says what was waited for. */
export async function until(what, ask, patienceMs = PATIENCE_MS) {
  const end = Date.now() + patienceMs;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`waited in vain for ${what}`);
    await sleep(50);
  }
}

export class Harness {
  constructor(address, executablePath) {
    this.address = address;
    this.executablePath = executablePath;
    this.closers = [];
    this.pages = new Map();
  }

  /**
   * Pages of a site under the collector's own host: a server before the service that has these pages
   * and hands on all else. (A browser whose requests are intercepted may lose those of a page that is
   * being left.)
   */
  async serveSite() {
    const service = new URL(this.address);
    const server = createServer((asked, response) => {
      const page = this.pages.get(new URL(asked.url, service).pathname);
      if (page) {
        response.setHeader("content-type", "text/html; charset=utf-8");
        response.setHeader("cache-control", page.cached ? "max-age=600" : "no-cache");
        response.end(page.html);
        return;
      }
      const { method, url: path, headers } = asked;
      if (OTHER_SCRIPT && path === "/marquee.js") {
        const head = { "content-type": "text/javascript", "cache-control": "max-age=300" };
        return void response.writeHead(200, head).end(OTHER_SCRIPT);
      }
      if (path === "/favicon.ico") return void response.writeHead(204).end();
      const onward = request({ host: service.hostname, port: service.port, method, path, headers }, (answer) => {
        response.writeHead(answer.statusCode, answer.headers);
        answer.pipe(response);
      });
      onward.on("error", () => response.destroy());
      asked.pipe(onward);
    });
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    this.closers.push(() => new Promise((resolve) => (server.close(resolve), server.closeAllConnections())));
    this.address = `http://127.0.0.1:${server.address().port}`;
  }

  /** A browser of its own, with nothing stored. */
  async context(options = {}) {
    this.browser ??= chromium.launch({
      executablePath: this.executablePath,
      // Sandboxes need a user that is not root; all that is loaded here is ours.
      args: ["--no-sandbox"],
    });
    return (await this.browser).newContext({ viewport: { width: 800, height: 600 }, ...options });
  }

  /** The address of a page with this content, under the collector's own host; browsers may keep it. */
  site(html, name = "index", { cached = false } = {}) {
    this.pages.set(`/site/${name}.html`, { html, cached });
    return `${this.address}/site/${name}.html`;
  }

  /** The same on a host of its own: another port is another origin (MARQUEE_SITE_PORT, if it is named). */
  async otherSite(html) {
    const server = createServer((request, response) => {
      response.setHeader("content-type", "text/html; charset=utf-8");
      response.end(html);
    });
    await new Promise((resolve) => server.listen(Number(process.env.MARQUEE_SITE_PORT ?? 0), "127.0.0.1", resolve));
    this.closers.push(() => new Promise((resolve) => server.close(resolve)));
    return `http://127.0.0.1:${server.address().port}/`;
  }

  /** Opens a page and waits until the script is there. What the page says on its console is kept. */
  async open(context, url) {
    const page = await context.newPage();
    page.said = [];
    page.on("console", (message) => page.said.push(message.text()));
    page.on("pageerror", (error) => page.said.push(`error: ${error}`));
    await page.goto(url);
    await page.waitForFunction(() => window.marquee?.flush);
    return page;
  }

  async get(path) {
    const answer = await fetch(`${this.address}${path}`);
    assert.equal(answer.status, 200, path);
    return answer.json();
  }

  async cells(slice = "{}") {
    const { cells } = await this.get(`/v1/trends?limit=10000&slice=${encodeURIComponent(slice)}`);
    return cells;
  }

  /** { video: [impressions, plays] } over all epochs. */
  async counts(slice) {
    const counts = {};
    for (const { video, impressions, plays } of await this.cells(slice)) {
      counts[video] ??= [0, 0];
      counts[video][0] += impressions;
      counts[video][1] += plays;
    }
    return counts;
  }

  /** What the lanes have read, doubles included. */
  async totals() {
    return (await this.get("/v1/status")).totals;
  }

  /** Waits until the cells are these and no others, and looks once more whether they stay so. */
  async expectCounts(expected, slice) {
    const sorted = (counts) => JSON.stringify(Object.entries(counts).sort());
    let counts;
    const isEqual = async () => {
      counts = await this.counts(slice);
      return sorted(counts) === sorted(expected);
    };
    await until("cells", isEqual).catch(() => assert.deepEqual(counts, expected));
    await sleep(1500);
    assert.deepEqual(await this.counts(slice), expected, "it did not stay so");
  }

  async close() {
    await (await this.browser)?.close();
    for (const close of this.closers) await close();
  }
}

/** What of the script is in a page's local storage: the events that were not acknowledged. */
export function stored(page) {
  return page.evaluate(() =>
    Object.keys(localStorage).filter((key) => key.startsWith("marquee ")).map((key) => localStorage[key]));
}

/** Headless tabs are never hidden: this says so in their place. */
export function setVisibility(page, state) {
  return playVisibility(page, [[state, 0]]);
}

/** Goes through such states, each for so long; how long each really was. */
export function playVisibility(page, states) {
  return page.evaluate(async (states) => {
    const took = [];
    for (const [state, ms] of states) {
      Object.defineProperty(document, "visibilityState", { configurable: true, get: () => state });
      document.dispatchEvent(new Event("visibilitychange"));
      const start = performance.now();
      if (ms > 0) await new Promise((resolve) => setTimeout(resolve, ms));
      took.push(performance.now() - start);
    }
    return took;
  }, states);
}
