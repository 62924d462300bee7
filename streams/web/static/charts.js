// Charts by uPlot (MIT, in uplot/): 50 kB without dependencies, draws on a canvas in the reader's browser, so that the
// worker sends numbers and renders nothing. Every chart stands beside a table of the same numbers.
/* global uPlot */
import { h, percent, when } from "./dom.js";

const made = new Map();

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

const FONT = "12px system-ui, sans-serif";

function axis(more) {
  return { stroke: () => colour("muted"), grid: { stroke: () => colour("line"), width: 1 }, ticks: { show: false },
    font: FONT, ...more };
}

const percents = (_, values) => values.map((value) => `${Math.round(value * 100)} %`);

/** Draw into a place; a chart that was there before goes. It follows the width of its place. */
function draw(place, name, height, options, data) {
  made.get(name)?.close();
  const width = () => Math.max(200, Math.floor(place.clientWidth));
  const chart = new uPlot({ legend: { show: false }, padding: [8, 8, 0, 0], ...options, width: width(), height }, data, place);
  const watch = new ResizeObserver(() => { if (place.isConnected && Math.abs(chart.width - width()) > 1) chart.setSize({ width: width(), height }); });
  watch.observe(place);
  made.set(name, { close: () => { watch.disconnect(); chart.destroy(); }, chart });
  chart.root.setAttribute("aria-hidden", "true");
}

/** Draw all once more: the colours have changed. */
export function recolour() {
  for (const { chart } of made.values()) chart.redraw(true, true);
}

function line(context, from, to, stroke, width, dash = []) {
  context.save();
  context.strokeStyle = stroke;
  context.lineWidth = width;
  context.setLineDash(dash);
  context.beginPath();
  context.moveTo(...from);
  context.lineTo(...to);
  context.stroke();
  context.restore();
}

/** One bar for each of some places, with the baseline's interval and middle across it. */
export function bars(place, name, rows) {
  const last = rows.length - 1;
  const fills = () => rows.map((row) => colour(row.level === "alert" ? "worse" : row.level === "warn" ? "warn" : "bar"));
  const path = uPlot.paths.bars({ size: [0.56, 64], radius: 0.12, disp: { fill: { unit: 3, values: fills }, stroke: { unit: 3, values: fills } } });
  const most = Math.max(0.05, ...rows.flatMap((row) => [row.rate ?? 0, row.high ?? 0]));
  const narrow = place.clientWidth < 430;
  draw(place, name, 190, {
    cursor: { show: false },
    scales: { x: { time: false, range: () => [-0.6, last + 0.6] }, y: { range: () => [0, Math.min(1, most * 1.12)] } },
    axes: [
      axis({ splits: () => rows.map((_, index) => index), values: () => rows.map((row) => row.label), grid: { show: false }, size: narrow ? 46 : 28, gap: 6,
        rotate: narrow ? 35 : 0 }),
      axis({ values: percents, size: 44, splits: undefined }),
    ],
    series: [{}, { paths: path, fill: () => colour("bar"), stroke: "transparent", width: 0, points: { show: false } }],
    hooks: { draw: [(chart) => rows.forEach((row, index) => expected(chart, row, index))] },
  }, [rows.map((_, index) => index), rows.map((row) => row.rate)]);
}

function expected(chart, row, index) {
  if (row.expected === null || row.expected === undefined) return;
  const { ctx: context } = chart;
  const middle = chart.valToPos(index, "x", true);
  const half = Math.min(44 * devicePixelRatio, 0.42 * (chart.valToPos(1, "x", true) - chart.valToPos(0, "x", true)));
  const at = (value) => chart.valToPos(value, "y", true);
  if (row.low !== null && row.low !== undefined) {
    context.save();
    context.fillStyle = colour("band");
    const top = at(row.high), tall = Math.max(at(row.low) - top, 2);
    context.fillRect(middle - half, top, 2 * half, tall);
    context.restore();
  }
  line(context, [middle - half, at(row.expected)], [middle + half, at(row.expected)], colour("expected"), 2 * devicePixelRatio);
}

/** A rate over time with its baseline; marks are [epoch seconds, name, colour]. */
export function series(place, name, rows, marks) {
  const span = [Math.min(...rows.map((row) => row.from)), Math.max(...rows.map((row) => row.to))];
  const from = Math.min(span[0], ...marks.map(([at]) => at));
  const values = (key) => rows.map((row) => row[key]);
  const all = rows.flatMap((row) => [row.rate, row.low, row.high]).filter((value) => value !== null && value !== undefined);
  const low = Math.min(...all), high = Math.max(...all), pad = Math.max(0.02, 0.12 * (high - low));
  const plain = { points: { show: false }, stroke: "transparent", spanGaps: true };
  draw(place, name, Math.min(300, Math.max(200, innerHeight * 0.32)), {
    cursor: { y: false, points: { size: 8 }, drag: { x: false, y: false } },
    scales: { x: { time: true, range: () => [from, span[1]] }, y: { range: () => [Math.max(0, low - pad), Math.min(1, high + pad)] } },
    axes: [
      axis({ space: 90, size: 28, gap: 6, values: (_, at) => at.map((moment) => when(moment, { hour: undefined, minute: undefined, year: undefined }).replace(" UTC", "")) }),
      axis({ values: percents, size: 48 }),
    ],
    bands: [{ series: [3, 2], fill: () => colour("band") }],
    series: [
      {},
      { stroke: () => colour("ink"), width: 2, points: { show: rows.length < 60, size: 5, fill: () => colour("ink") }, spanGaps: true },
      plain, plain,
      { stroke: () => colour("expected"), width: 2, points: { show: false }, spanGaps: true },
    ],
    tzDate: (moment) => uPlot.tzDate(new Date(moment * 1000), "Etc/UTC"),
    hooks: {
      drawAxes: [(chart) => marks.forEach((mark) => marked(chart, mark))],
      setCursor: [(chart) => told(place, rows[chart.cursor.idx])],
    },
  }, [rows.map((row) => (row.from + row.to) / 2), values("rate"), values("low"), values("high"), values("expected")]);
}

function marked(chart, [at, name, tone]) {
  const { ctx: context, bbox } = chart;
  const x = chart.valToPos(at, "x", true);
  if (!(x >= bbox.left && x <= bbox.left + bbox.width)) return;
  line(context, [x, bbox.top], [x, bbox.top + bbox.height], colour(tone), 1.5 * devicePixelRatio, [4 * devicePixelRatio, 3 * devicePixelRatio]);
  context.save();
  context.fillStyle = colour(tone);
  context.font = `${12 * devicePixelRatio}px system-ui, sans-serif`;
  const right = x > bbox.left + 0.75 * bbox.width;
  context.textAlign = right ? "right" : "left";
  const y = tone === "muted" ? bbox.top + bbox.height - 6 * devicePixelRatio : bbox.top + 13 * devicePixelRatio;
  context.fillText(name, x + (right ? -5 : 5) * devicePixelRatio, y);
  context.restore();
}

function told(place, row) {
  const note = place.parentElement?.querySelector(".readout");
  if (!note) return;
  note.textContent = row
    ? `${when(row.from)}: ${percent(row.rate)} of ${row.n ?? "fewer than 5"}, expected ${percent(row.expected)}`
    : "";
}

/** Events a second, small. */
export function pace(place, name, rows) {
  draw(place, name, 84, {
    cursor: { show: false }, padding: [8, 4, 8, 0],
    scales: { x: { time: true }, y: { range: (_, __, high) => [0, Math.max(1, high * 1.1)] } },
    axes: [{ show: false }, axis({ size: 44, values: (_, values) => values.map((value) => (value >= 1000 ? `${value / 1000}k` : value)), space: 26 })],
    series: [{}, { stroke: () => colour("accent"), fill: () => colour("accent-soft"), width: 1.5, points: { show: false } }],
  }, [rows.map(([at]) => at), rows.map(([, value]) => value)]);
}

/** What the marks of a chart mean. */
export function legend(...entries) {
  return h("ul.legend", { "aria-hidden": "true" }, entries.map(([kind, text]) => h("li", {}, h(`i.${kind}`), text)));
}
