"use strict";
const root = document.documentElement;
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const palette = read("palette");
const figures = read("figures");
const config = { displayModeBar: false, responsive: true };
const systemDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme ?? (systemDark.matches ? "dark" : "light")) === "dark";

/* A figure names only the light palette's colours; the dark one is a change of names. */
function themed(figure, dark) {
  let text = JSON.stringify(figure);
  if (dark) for (const [from, to] of palette) text = text.replaceAll(from, to);
  return JSON.parse(text);
}

/* The legend stands below the plot, in as many rows as it needs, and takes nothing from it. */
function legendHeight(data, layout, width) {
  const entries = layout.showlegend ? data.filter((trace) => trace.showlegend !== false).length : 0;
  return 26 * Math.ceil(entries / Math.max(1, Math.floor(width / 300)));
}

function draw(dark, width) {
  for (const [name, figure] of Object.entries(figures)) {
    const { data, layout } = themed(figure, dark);
    const plot = document.getElementById(`plot-${name}`);
    const height = (layout.height ?? 400) + legendHeight(data, layout, width ?? plot.clientWidth);
    Plotly.react(plot, data, { ...layout, dragmode: false, width, height }, config);
  }
}

async function unpackPlotly() {
  const packed = atob(document.getElementById("plotly-js").textContent.trim());
  const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

function label() {
  document.getElementById("theme").textContent = isDark() ? "Light" : "Dark";
}

async function start() {
  const button = document.getElementById("theme");
  button.hidden = false;
  label();
  if (!matchMedia("(min-width: 1200px)").matches) document.getElementById("sections").open = false;
  if (Object.keys(figures).length) {
    await unpackPlotly();
    for (const name of Object.keys(figures)) document.getElementById(`plot-${name}`).replaceChildren();
    draw(isDark());
  }
  const redraw = () => { label(); if (window.Plotly) draw(isDark()); };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    redraw();
  });
  systemDark.addEventListener("change", redraw);
  addEventListener("beforeprint", () => {
    for (const closed of document.querySelectorAll("details")) closed.open = true;
    if (window.Plotly) draw(false, 680);
  });
  addEventListener("afterprint", redraw);
}
start();
