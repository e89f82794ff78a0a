// The invented site on which marquee.js is tried.

const escape = (text) => text.replaceAll("&", "&amp;").replaceAll('"', "&quot;").replaceAll("<", "&lt;");

/** One tile: 300 x 200 pixels unless a style says otherwise. */
export function tile(video, request, { style = "", more = "", inside = "" } = {}) {
  const attributes = `data-video-id="${video}" data-request-id="${request}" data-row="2"`;
  const place = `data-position="5" data-code="code-${video}"`;
  return `<div class="tile" ${attributes} ${place} ${more} style="${style}">${inside}</div>`;
}

/** Tiles v1, v2, ... at 1200, 2400, ... pixels; a window of 600 shows one of them or, at first, none. */
export function column(count) {
  const each = (_, index) => `<div style="height:1200px">${tile(`v${index + 1}`, "r0")}</div>`;
  const gap = '<div style="height:1200px"></div>';
  return gap + Array.from({ length: count }, each).join("") + gap;
}

/** A page with the script as a site would have it. */
export function html(t, body, { preset, attributes, storage, collector, before = "", head = "" } = {}) {
  const data = [
    preset && `data-preset="${preset}"`,
    attributes && `data-attributes="${escape(JSON.stringify(attributes))}"`,
    storage && `data-storage="${storage}"`,
    collector && `data-collector="${collector}"`,
  ];
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>A site</title>
${head}
<style>body { margin: 0 } .tile { width: 300px; height: 200px; background: #ccc }</style>
<script>${before}</script>
<script src="${t.address}/marquee.js" async ${data.filter(Boolean).join(" ")}></script>
<body>${body}</body>
</html>`;
}
