// Asks the worker every few seconds, and shows what has changed.
import { recolour } from "./charts.js";
import { $, count, fill, h, when } from "./dom.js";
import * as findings from "./findings.js";
import * as sections from "./sections.js";

const EVERY_MS = 3000;
const SLOWEST_MS = 30000;
const PATIENCE_MS = 15000; // one that hangs holds up the others for so long
const SECTIONS = [
  ["/api/findings", "findings", (body) => { findings.render(body); announce(body); }],
  ["/api/segments", "journey", sections.journey],
  ["/api/leads", "leads", sections.leads],
  ["/api/data", "data trust", sections.data],
  ["/api/pipeline", "pipeline", sections.pipeline],
];
const known = new Map(); // path → what is on the page
let worker = null;
let seen = null;
let failed = 0;
let shown = null;
let locked = false;
let timer = null;
let wrong = new Map(); // section → what is wrong with it

class NeedsToken extends Error {}

/** The newest answer; it is known only once it is on the page, so what could not be shown is asked for in full again. */
async function ask(path) {
  const before = known.get(path);
  const answer = await fetch(path, { headers: before ? { "If-None-Match": before.etag } : {}, cache: "no-store",
    signal: AbortSignal.timeout(PATIENCE_MS) });
  if (answer.status === 401) throw new NeedsToken();
  if (answer.status === 304) return { ...before, fresh: false };
  const body = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(body.error ?? answer.statusText), { status: answer.status, worker: body.worker });
  return { etag: answer.headers.get("ETag"), body, fresh: true };
}

/** Put an answer on the page, unless it is there. */
function show(path, render, { etag, body, fresh }) {
  if (!fresh) return;
  render(body);
  known.set(path, { etag, body });
}

/** Whose answers are shown: those of one worker at a time, or cards would come and go with each that answers. */
function settle(answers) {
  if (answers.some((one) => one.body.worker === worker)) return;
  worker = answers[0].body.worker; // the first turn, or it was restarted, or the proxy has moved us
  known.clear();
  seen = null;
}

const segmentsPath = () => `/api/segments?stage=${encodeURIComponent($("stage").value)}`;

/** Segments of the stage that is chosen: when they come it may be another. */
function showSegments(path, answer) {
  if (path === segmentsPath() && answer.body.worker === worker) show(path, sections.segments, answer);
}

function announce(body) {
  const ids = new Set(body.open.map((one) => one.id));
  if (seen) {
    const fresh = body.open.filter((one) => !seen.has(one.id));
    if (fresh.length) $("live").textContent = `New: ${fresh.map((one) => one.summary).join(" ")}`;
    else if ([...seen].some((id) => !ids.has(id))) $("live").textContent = "A finding has ended.";
  }
  seen = ids;
  const worse = body.open.filter((one) => one.direction === "worse").length;
  document.title = worse ? `(${worse}) trustwatch` : "trustwatch";
}

function state(name, text) {
  $("state").dataset.state = name;
  $("state").textContent = text;
}

function header(body, pipeline) {
  const facts = [
    ["Judged until", body.judged_until ? when(body.judged_until) : "nothing yet"],
    ["Watched", count(pipeline.watched_streams)],
    ["Partitions", `${body.partitions.counts.length} of ${body.partitions.counts_of}`],
  ];
  fill($("facts"), facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  const { note } = body.partitions;
  $("partitions").hidden = !note;
  $("partitions").textContent = note ?? "";
}

/** The sections that could not be asked for or shown are said; the others go on. */
async function refresh() {
  const wanted = [...SECTIONS];
  if ($("segments").open && $("stage").value) wanted.push([segmentsPath(), "segments", null]);
  const results = await Promise.allSettled(wanted.map(([path]) => ask(path)));
  const reasons = results.filter((one) => one.status === "rejected").map((one) => one.reason);
  const locking = reasons.find((reason) => reason instanceof NeedsToken);
  if (locking) throw locking;
  if (reasons.length === results.length) throw reasons[0];
  wrong = new Map();
  settle(results.filter((one) => one.status === "fulfilled").map((one) => one.value));
  const others = [];
  wanted.forEach(([path, name, render], index) => {
    const { status, value, reason } = results[index];
    try {
      if (status === "rejected") throw reason;
      if (value.body.worker !== worker) others.push(name);
      else if (render === null) showSegments(path, value);
      else show(path, render, value);
    } catch (error) {
      wrong.set(name, error.message);
    }
  });
  if (others.length) wrong.set(others.join(", "), "another worker answered. Fix: cookie affinity at the proxy");
  summary();
  if (shown) await open(shown, false).catch((error) => wrong.set("finding", error.message));
}

function summary() {
  const [body, pipeline] = ["/api/findings", "/api/pipeline"].map((path) => known.get(path)?.body);
  if (body && pipeline) header(body, pipeline);
  if (!body || !pipeline || wrong.has("findings") || wrong.has("pipeline")) return state("lost", "partly known");
  const judged = body.learning.some((one) => one.ok + one.warn + one.alert > 0);
  if (!pipeline.ready) state("waiting", "starting");
  else if (!judged && !body.open.length) state("waiting", body.judged_until ? "learning" : "no events yet");
  else state(body.open.some((one) => one.level === "alert" && one.direction === "worse") ? "alert" : "ready",
    body.open.length ? `${body.open.length} open` : "all quiet");
}

function trouble(text) {
  $("trouble").hidden = !text;
  if ($("trouble").textContent !== text) $("trouble").textContent = text;
}

async function turn() {
  clearTimeout(timer);
  let wait = EVERY_MS;
  if (!document.hidden) {
    try {
      await refresh();
      failed = 0;
      trouble([...wrong].map(([name, text]) => `Not up to date: ${name} (${text}).`).join(" "));
    } catch (error) {
      if (error instanceof NeedsToken) return signIn();
      failed += 1;
      wait = Math.min(EVERY_MS * 2 ** (failed - 1), SLOWEST_MS);
      state("lost", "not connected");
      trouble(`The worker does not answer (${error.message}). What is shown is from before; asking again.`);
    }
    sections.ages();
  }
  timer = setTimeout(turn, wait);
}

function signIn() {
  locked = true;
  shown = null; // the address stays: what it names opens after the token
  if (dialog.open) dialog.close(); // beneath an open one the form would be inert
  $("main").hidden = true;
  $("signin").hidden = false;
  state("waiting", "locked");
  $("token").focus();
}

$("signin").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.target.querySelector("button");
  if (button.disabled) return;
  button.disabled = true;
  try {
    trouble(await unlock($("token").value));
  } catch (error) {
    trouble(`The worker does not answer (${error.message}).`);
  } finally {
    button.disabled = false;
    $("token").value = "";
  }
  if (!locked) {
    turn();
    route();
  }
});

/** Swap the token for a cookie; returns what is wrong with it. */
async function unlock(token) {
  const sent = /^[ -~]+$/.test(token); // more no header can carry, and no token has
  const answer = sent ? await fetch("/api/session", { headers: { Authorization: `Bearer ${token}` } }) : null;
  if (!answer?.ok) return "That is not the token of this worker.";
  locked = false;
  $("signin").hidden = true;
  $("main").hidden = false;
  return "";
}

// ── the page of a finding: #finding=<id> ──

const dialog = $("detail");
const close = () => dialog.close();

async function open(id, first) {
  const path = `/api/findings/${encodeURIComponent(id)}`;
  try {
    const answer = await ask(path);
    if (shown !== id || (!answer.fresh && !first)) return;
    worker ??= answer.body.worker;
    if (answer.body.worker !== worker && !first) return;
    const opened = [...dialog.querySelectorAll("details")].map((one) => one.open);
    show(path, (body) => fill(dialog, findings.detail(body, close)), { ...answer, fresh: true });
    dialog.querySelectorAll("details").forEach((one, index) => { one.open = opened[index] ?? false; });
  } catch (error) {
    if (error instanceof NeedsToken) return dialog.close();
    if (error.status !== 404) throw error;
    if (shown !== id || (error.worker !== worker && !first)) return;
    fill(dialog, h("div.head", {}, h("h2", { id: "detail-title", tabindex: "-1" }, "Not here"),
      h("button.close", { type: "button", "aria-label": "Close", onclick: close }, "×")), h("p", {}, error.message));
  }
  if (!dialog.open) dialog.showModal();
  if (first) $("detail-title")?.focus();
}

function route() {
  if (locked) return;
  const id = new URLSearchParams(location.hash.slice(1)).get("finding");
  shown = id;
  if (id) open(id, true).catch((error) => trouble(error.message));
  else if (dialog.open) dialog.close();
}

dialog.addEventListener("close", () => {
  if (!shown) return;
  const key = shown;
  shown = null;
  history.replaceState(null, "", location.pathname);
  document.querySelector(`a[data-key="${CSS.escape(key)}"]`)?.focus();
});
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
addEventListener("hashchange", route);

async function chosen() {
  const path = segmentsPath();
  known.delete(path); // what is on the page is another stage's
  try {
    showSegments(path, await ask(path));
  } catch (error) {
    if (error instanceof NeedsToken) return; // the next turn asks for it
    trouble(`Not up to date: segments (${error.message}).`);
  }
}

$("segments").addEventListener("toggle", chosen);
$("stage").addEventListener("change", chosen);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);

turn();
route();
