"use strict";
// Everything here is an addition: without it each page still shows its tables and sends its forms.
document.documentElement.classList.add("js");

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const LINES = ["--accent", "--warn", "--good", "--bad", "--muted"];
const DASHES = [[], [6, 4], [2, 3], [8, 3, 2, 3], [1, 2]];
const drawn = new Map();

// A chart is drawn from the table beside it: the first column is x, every other one a line.
function columns(table) {
  const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
  const rows = [...table.tBodies[0].rows];
  const values = names.map((_, at) => rows.map((row) => {
    const given = row.cells[at].dataset.value ?? row.cells[at].textContent.trim();
    return given === "" || Number.isNaN(Number(given)) ? null : Number(given);
  }));
  const used = names.map((_, at) => at === 0 || table.tHead.rows[0].cells[at].dataset.line !== undefined);
  return { names: names.filter((_, at) => used[at]), values: values.filter((_, at) => used[at]) };
}

function draw(figure) {
  const plot = figure.querySelector(".plot"), table = figure.querySelector("details table");
  drawn.get(figure)?.destroy();
  const { names, values } = columns(table);
  plot.hidden = values[0].length < 2;
  if (plot.hidden) return;
  const share = figure.dataset.unit === "share", time = figure.dataset.x === "time";
  const named = (label) => label && !time ? { label, labelSize: 22, labelFont: "12px system-ui, sans-serif" } : {};
  const axis = { stroke: colour("--muted"), grid: { stroke: colour("--hairline"), width: 1 }, ticks: { stroke: colour("--hairline") } };
  const shown = (value) => value === null || value === undefined ? "–" : share ? `${value.toFixed(1)} %` : `${Number(value.toPrecision(4))}`;
  const when = (value) => value === null || value === undefined ? "–" : new Date(value * 1000).toISOString().slice(0, 16).replace("T", " ");
  drawn.set(figure, new uPlot({
    width: Math.max(240, plot.clientWidth),
    height: 220,
    scales: { x: { time }, y: share ? { range: [0, 100] } : { range: (_, low, high) => [Math.min(0, low), high > 0 ? high * 1.05 : 1] } },
    axes: [{ ...axis, ...named(names[0]), size: time ? 50 : 34, ...(values[0].every(Number.isInteger) && !time ? { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] } : {}) }, { ...axis, ...named(figure.dataset.y), size: 54, values: (_, ticks) => ticks.map((tick) => share ? `${tick} %` : `${tick}`) }],
    series: [{ label: names[0], value: (_, value) => time ? when(value) : plain(value) }, ...names.slice(1).map((label, at) => ({
      label, stroke: colour(LINES[at % LINES.length]), dash: DASHES[at % DASHES.length], width: 2, spanGaps: true,
      points: { show: values[0].length < 40, size: 5 }, value: (_, value) => shown(value),
    }))],
    cursor: { drag: { x: false, y: false } },
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
  }, values, plot));
}

const plain = (value) => value === null || value === undefined ? "–" : `${Number(value.toPrecision(4))}`;
const charts = (root) => root.querySelectorAll("figure[data-chart]").forEach(draw);

function redraw() {
  for (const [figure, chart] of drawn) if (!figure.isConnected) { chart.destroy(); drawn.delete(figure); }
  charts(document);
}

// A report has no scripts of its own; its frame is made as high as it is.
function fit(frame) {
  const inside = frame.contentDocument;
  if (inside?.documentElement) frame.style.height = `${inside.documentElement.scrollHeight + 4}px`;
}

document.addEventListener("alpine:init", () => {
  Alpine.data("menu", () => ({
    open: false,
    toggle() { this.open = !this.open; },
    get expanded() { return this.open ? "true" : "false"; },
    get shown() { return this.open ? "open" : ""; },
  }));
  Alpine.data("copying", () => ({
    said: "Copy",
    async copy() { await navigator.clipboard.writeText(this.$refs.secret.textContent.trim()); this.said = "Copied"; },
  }));
  Alpine.data("picked", () => ({
    told: "",
    look() {
      const file = this.$refs.file.files[0], limit = Number(this.$refs.file.dataset.limit);
      const large = file && file.size > limit;
      this.told = file ? `${(file.size / 1e6).toFixed(2)} MB${large ? `: larger than the ${(limit / 1e6).toFixed(0)} MB that this service takes` : ""}` : "";
      this.$refs.file.setCustomValidity(large ? "The file is larger than this service takes." : "");
    },
  }));
  Alpine.data("ball", () => ({
    norm: "linf",
    usual: { linf: "8/255", l2: "0.5", l1: "12", l0: "10" },
    init() { this.norm = this.$refs.norm.value; },
    change() {
      const old = this.usual[this.norm];
      this.norm = this.$refs.norm.value;
      if (this.$refs.eps.value.trim() === old) this.$refs.eps.value = this.usual[this.norm];
    },
  }));
});

document.addEventListener("DOMContentLoaded", () => {
  charts(document);
  document.querySelectorAll("iframe.frame").forEach((frame) => { frame.addEventListener("load", () => fit(frame)); fit(frame); });
  const login = document.querySelector("form[data-login]");
  if (login && location.hash.startsWith("#svc_")) {
    // The link that `sparring up` prints: what stands after # never leaves the browser by itself. Elsewhere than on one's own
    // machine somebody else's link must not log one in to their project unasked.
    login.elements.key.value = decodeURIComponent(location.hash.slice(1));
    history.replaceState(null, "", location.pathname + location.search);
    if (["127.0.0.1", "localhost", "[::1]"].includes(location.hostname)) login.requestSubmit();
  }
});

const open = new Set();
document.addEventListener("htmx:beforeSwap", () => {
  open.clear();
  document.querySelectorAll("details[id][open]").forEach((each) => open.add(each.id));
});
document.addEventListener("htmx:afterSwap", () => {
  open.forEach((id) => document.getElementById(id)?.setAttribute("open", ""));
  redraw();
});

let waiting;
addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(() => { redraw(); document.querySelectorAll("iframe.frame").forEach(fit); }, 150); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
