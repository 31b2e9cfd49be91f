"use strict";
const root = document.documentElement;
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const palette = read("palette");
const figures = read("figures");
const config = { displayModeBar: false };
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

function drawOne(name, dark, given) {
  const { data, layout } = themed(figures[name], dark);
  const plot = document.getElementById(`plot-${name}`);
  const width = given ?? plot.clientWidth;
  const height = (layout.height ?? 400) + legendHeight(data, layout, width);
  if (!plot.dataset.drawn) plot.replaceChildren();
  plot.dataset.drawn = "yes";
  return Plotly.react(plot, data, { ...layout, dragmode: false, width, height }, config);
}

/* Figures are drawn one after another between frames, so that the page can be read at once. */
let drawing = 0;
async function draw(dark) {
  const turn = ++drawing;
  for (const name of Object.keys(figures)) {
    await new Promise((next) => setTimeout(next));
    if (turn !== drawing) return;
    await drawOne(name, dark);
  }
}

async function unpackPlotly() {
  const packed = atob(document.getElementById("plotly-js").textContent.trim());
  const bytes = new Uint8Array(packed.length); // Uint8Array.from takes thirty times as long
  for (let place = 0; place < packed.length; place++) bytes[place] = packed.charCodeAt(place);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

function label() {
  document.getElementById("theme").textContent = isDark() ? "Light" : "Dark";
}

/* What a cell is sorted by: its number where it has one; a missing one comes last. */
function keyOf(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.value ?? cell.textContent.trim();
  const number = Number(text.replaceAll(",", ""));
  return text !== "" && Number.isFinite(number) ? number : text;
}

function compare(a, b) {
  const missing = (key) => key === "" || key === "-";
  if (missing(a) || missing(b)) return missing(a) - missing(b);
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b));
}

function makeSortable(table) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      for (const open of body.querySelectorAll("tr.detail")) close(open);
      const rows = [...body.rows].map((row) => [keyOf(row, column), row]);
      rows.sort(([a], [b]) => {
        const order = compare(a, b);
        const last = [a, b].some((key) => key === "" || key === "-");
        return down && !last ? -order : order;
      });
      body.append(...rows.map(([, row]) => row));
    });
  });
}

function makeFilter(table) {
  const input = document.getElementById("filter");
  const shown = document.getElementById("shown");
  input.closest(".filter").hidden = false;
  const rows = [...table.tBodies[0].rows];
  const texts = rows.map((row) => [...row.cells].map((cell, column) => {
    const head = table.tHead.rows[0].cells[column].textContent.trim();
    return `${cell.textContent.trim()} ${head} ${cell.textContent.trim()}`;
  }).join(" | ").toLowerCase());
  input.addEventListener("input", () => {
    for (const open of table.querySelectorAll("tr.detail")) close(open);
    const words = input.value.toLowerCase().split(/[\s,]+/).filter(Boolean).join(" ").trim();
    const parts = input.value.toLowerCase().split(",").map((part) => part.trim()).filter(Boolean);
    let count = 0;
    rows.forEach((row, place) => {
      row.hidden = words !== "" && !parts.every((part) => texts[place].includes(part));
      count += !row.hidden;
    });
    shown.textContent = words ? `${count} of ${rows.length}` : "";
  });
}

function close(detail) {
  detail.previousElementSibling.querySelector("button").setAttribute("aria-expanded", "false");
  detail.remove();
}

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text !== null) made.textContent = text;
  made.append(...children);
  return made;
}

/* A trial's own curve, without Plotly: the first and the last accuracy stand beside it. */
function sparkline(curve) {
  const [wide, high] = [240, 48];
  const [low, top] = [Math.min(...curve), Math.max(...curve)];
  const at = (value, place) =>
    `${(wide * place) / Math.max(1, curve.length - 1)},${high - (high * (value - low)) / (top - low || 1)}`;
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", `-2 -2 ${wide + 4} ${high + 4}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `val_probe_top1 from ${curve[0]} to ${curve.at(-1)} %`);
  const line = document.createElementNS(space, "polyline");
  line.setAttribute("points", curve.map(at).join(" "));
  svg.append(line);
  return svg;
}

function detailOf(told) {
  const list = document.createElement("dl");
  const say = (name, ...content) => list.append(element("dt", name), element("dd", null, ...content));
  const differs = Object.entries(told.differs).map(([knob, value]) => `${knob} ${value}`);
  say("against the baseline", differs.join(", ") || "no difference");
  if (told.curve.length > 1)
    say("val_probe_top1", sparkline(told.curve), ` ${told.curve[0]} to ${told.curve.at(-1)} %`);
  if (told.error) say("error", element("pre", told.error));
  say("checkpoint", element("code", told.checkpoint));
  if (told.ended) say("ended", `${told.ended}, session ${told.session}`);
  return list;
}

function makeOpenable(table) {
  const details = read("details");
  for (const row of [...table.tBodies[0].rows]) {
    const head = row.cells[0];
    const told = details[head.textContent.trim()];
    if (!told) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "more";
    button.setAttribute("aria-expanded", "false");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      if (button.getAttribute("aria-expanded") === "true") return close(row.nextElementSibling);
      button.setAttribute("aria-expanded", "true");
      const cell = element("td", null, detailOf(told));
      cell.colSpan = row.cells.length;
      const detail = element("tr", null, cell);
      detail.className = "detail";
      row.after(detail);
    });
  }
}

async function start() {
  const button = document.getElementById("theme");
  button.hidden = false;
  label();
  if (!matchMedia("(min-width: 1200px)").matches) document.getElementById("sections").open = false;
  const trials = document.querySelector("table.trials");
  makeFilter(trials);
  makeOpenable(trials);
  makeSortable(trials);
  const redraw = () => { label(); if (window.Plotly) draw(isDark()); };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    redraw();
  });
  systemDark.addEventListener("change", redraw);
  // Plotly's own way (`responsive`) takes a figure's height for that of an empty box.
  let wide = innerWidth, resized;
  addEventListener("resize", () => {
    if (innerWidth === wide) return; // a phone's address bar comes and goes
    wide = innerWidth;
    clearTimeout(resized);
    resized = setTimeout(redraw, 100);
  });
  addEventListener("beforeprint", () => {
    for (const closed of document.querySelectorAll("details:not(.data)")) closed.open = true;
    drawing++;
    if (window.Plotly) for (const name of Object.keys(figures)) drawOne(name, false, 680);
  });
  addEventListener("afterprint", redraw);
  if (Object.keys(figures).length) {
    await unpackPlotly();
    await draw(isDark());
  }
}
start();
