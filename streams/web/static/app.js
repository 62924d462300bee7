// Asks the worker every few seconds, and shows what has changed.
import { recolour } from "./charts.js";
import { $, count, fill, h, when } from "./dom.js";
import * as findings from "./findings.js";
import * as sections from "./sections.js";

const EVERY_MS = 3000;
const SLOWEST_MS = 30000;
const known = new Map();
let seen = null;
let failed = 0;
let shown = null;

class NeedsToken extends Error {}

/** The newest answer, and whether it differs from the last. */
async function ask(path) {
  const before = known.get(path);
  const answer = await fetch(path, { headers: before ? { "If-None-Match": before.etag } : {}, cache: "no-store" });
  if (answer.status === 401) throw new NeedsToken();
  if (answer.status === 304) return [before.body, false];
  const body = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(body.error ?? answer.statusText), { status: answer.status });
  known.set(path, { etag: answer.headers.get("ETag"), body });
  return [body, true];
}

async function show(path, render) {
  const [body, fresh] = await ask(path);
  if (fresh) render(body);
  return body;
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

async function refresh() {
  const [body, , , , pipeline] = await Promise.all([
    show("/api/findings", (found) => { findings.render(found); announce(found); }),
    show("/api/segments", sections.journey),
    show("/api/leads", sections.leads),
    show("/api/data", sections.data),
    show("/api/pipeline", sections.pipeline),
    $("segments").open && $("stage").value ? show(`/api/segments?stage=${encodeURIComponent($("stage").value)}`, sections.segments) : null,
  ]);
  header(body, pipeline);
  if (shown) await open(shown, false);
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
  let wait = EVERY_MS;
  if (!document.hidden) {
    try {
      await refresh();
      failed = 0;
      trouble("");
    } catch (error) {
      if (error instanceof NeedsToken) return signIn();
      failed += 1;
      wait = Math.min(EVERY_MS * 2 ** (failed - 1), SLOWEST_MS);
      state("lost", "not connected");
      trouble(`The worker does not answer (${error.message}). What is shown is from before; asking again.`);
    }
  }
  setTimeout(turn, wait);
}

function signIn() {
  $("main").hidden = true;
  $("signin").hidden = false;
  state("waiting", "locked");
  $("token").focus();
}

$("signin").addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = await fetch("/api/session", { headers: { Authorization: `Bearer ${$("token").value}` } });
  $("token").value = "";
  if (!answer.ok) return trouble("That is not the token of this worker.");
  trouble("");
  $("signin").hidden = true;
  $("main").hidden = false;
  turn();
});

// ── the page of a finding: #finding=<id> ──

const dialog = $("detail");
const close = () => dialog.close();

async function open(id, first) {
  try {
    const [body, fresh] = await ask(`/api/findings/${encodeURIComponent(id)}`);
    if (shown !== id || (!fresh && !first)) return;
    const opened = [...dialog.querySelectorAll("details")].map((one) => one.open);
    fill(dialog, findings.detail(body, close));
    dialog.querySelectorAll("details").forEach((one, index) => { one.open = opened[index] ?? false; });
  } catch (error) {
    if (error instanceof NeedsToken) return dialog.close();
    if (error.status !== 404) throw error;
    fill(dialog, h("div.head", {}, h("h2", { id: "detail-title", tabindex: "-1" }, "Not here"),
      h("button.close", { type: "button", "aria-label": "Close", onclick: close }, "×")), h("p", {}, error.message));
  }
  if (!dialog.open) dialog.showModal();
  if (first) $("detail-title")?.focus();
}

function route() {
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
$("segments").addEventListener("toggle", () => show(`/api/segments?stage=${encodeURIComponent($("stage").value)}`, sections.segments).catch((error) => trouble(error.message)));
$("stage").addEventListener("change", () => {
  known.delete(`/api/segments?stage=${encodeURIComponent($("stage").value)}`);
  show(`/api/segments?stage=${encodeURIComponent($("stage").value)}`, sections.segments).catch((error) => trouble(error.message));
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);

turn();
route();
