// Small helpers: elements, and how numbers and times are written.

/** An element: h("p.quiet", {title: "…"}, "text", child, …). Text is always text, never markup. */
export function h(what, attributes = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

export const $ = (id) => document.getElementById(id);

/** Put other content into an element; the focus stays on what has the same data-key. */
export function fill(element, ...children) {
  const key = element.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  const scrolled = element.scrollLeft;
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  element.scrollLeft = scrolled;
  if (key) element.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

export const HIDDEN = "–";

export function percent(value, digits = 1) {
  return value === null || value === undefined ? HIDDEN : `${(100 * value).toFixed(digits)} %`;
}

export function points(value) {
  const sign = value > 0 ? "+" : value < 0 ? "−" : "±";
  return `${sign}${Math.abs(100 * value).toFixed(1)} pts`;
}

export function amount(value, unit) {
  if (value === null || value === undefined) return HIDDEN;
  return unit === "ratio" ? percent(value) : `${Number(value.toPrecision(3))} ${unit}`;
}

const COUNT = new Intl.NumberFormat("en-GB");

export function count(value) {
  return value === null || value === undefined ? HIDDEN : COUNT.format(Math.round(value));
}

export function bytes(value) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  for (; value >= 1000 && at < units.length - 1; at += 1) value /= 1000;
  return `${value < 10 && at ? value.toFixed(1) : Math.round(value)} ${units[at]}`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return HIDDEN;
  for (const [width, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= 2 * width) return `${Math.round(seconds / width)} ${unit}`;
  }
  return seconds < 10 ? `${seconds.toFixed(seconds < 1 ? 2 : 1)} s` : `${Math.round(seconds)} s`;
}

const PARTS = { timeZone: "UTC", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23" };

/** A moment in UTC, with the year where it is not this one. Takes ISO 8601 or epoch seconds. */
export function when(moment, more = {}) {
  const date = new Date(typeof moment === "number" ? moment * 1000 : moment);
  const year = date.getUTCFullYear() === new Date().getUTCFullYear() ? {} : { year: "numeric" };
  return `${new Intl.DateTimeFormat("en-GB", { ...PARTS, ...year, ...more }).format(date)} UTC`;
}

/** The same, with the local time in its title. */
export function time(moment) {
  const date = new Date(typeof moment === "number" ? moment * 1000 : moment);
  return h("time", { datetime: date.toISOString(), title: date.toLocaleString() }, when(moment));
}

export const epoch = (iso) => Date.parse(iso) / 1000;

/** A table: columns are [heading, cell of a row, whether it is a number]. The first is the row's heading. */
export function table(caption, columns, rows) {
  const head = columns.map(([name, , numeric]) => h(numeric ? "th.num" : "th", { scope: "col" }, name));
  const body = rows.map((row) =>
    h("tr", {}, columns.map(([, cell, numeric], index) =>
      index === 0 ? h("th", { scope: "row" }, cell(row)) : h(numeric ? "td.num" : "td", {}, cell(row)))));
  return h("table", {}, h("caption.unseen", {}, caption), h("thead", {}, h("tr", {}, head)), h("tbody", {}, body));
}

const WORDS = { alert: "alert", warn: "warning", ok: "ok", warming: "learning" };

/** A level as a word with a shape, so that it does not hang on colour. */
export function level(name) {
  return name ? h("span.level", { "data-level": name }, WORDS[name] ?? name) : h("span.quiet", {}, "not watched");
}

/** The graver of several levels. */
export function gravest(levels) {
  const order = ["warming", "ok", "warn", "alert"];
  return Object.values(levels).sort((a, b) => order.indexOf(b) - order.indexOf(a))[0];
}
