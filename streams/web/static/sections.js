// Journey, leads, data trust and pipeline.
import { bars, legend, pace } from "./charts.js";
import { $, bytes, count, duration, fill, gravest, h, HIDDEN, level, percent, points, table, time, when } from "./dom.js";

const ADVANCE = "early_dropoff.at_all";
const HESITATION = "hesitation.micro_signals";

/** A rate, and how far it is from its baseline; coloured only where the detector warns or alerts. */
function against(rate, verdict) {
  if (!rate || rate.rate === null) return HIDDEN;
  if (rate.expected === null) return percent(rate.rate);
  const off = rate.rate - rate.expected;
  const tone = verdict !== "alert" && verdict !== "warn" ? "quiet" : (off > 0) === (rate.worse === "up") ? "is-worse" : "is-better";
  return h("span", { title: `expected ${percent(rate.expected)}` }, percent(rate.rate), " ", h("small", { class: tone }, points(off)));
}

function barsOf(rows, key, detector) {
  return rows.map((row) => ({ label: row.stage, level: row.levels[detector], ...(row.rates[key] ?? { rate: null, expected: null }) }));
}

function columns(first) {
  return [first,
    ["Entered", (row) => count(row.counts.entered), true],
    ["Advanced", (row) => against(row.rates[ADVANCE], row.levels.early_dropoff), true],
    ["Hesitated", (row) => against(row.rates[HESITATION], row.levels.hesitation), true],
    ["Verdict", (row) => level(gravest(row.levels))]];
}

function figure(name, title, rows) {
  const place = h("div.chart");
  queueMicrotask(() => bars(place, name, rows));
  return h("figure", {}, h("figcaption", {}, title), place);
}

export function journey(body) {
  for (const row of body.segments) if (row.stage === body.stages.at(-1)) delete row.rates[ADVANCE]; // nothing to advance to
  const rows = body.segments.filter((row) => row.segment_label === "all");
  $("journey-sum").textContent = rows.length ? `rates of the last ${duration(body.window_s)} of events against what is usual` : "";
  if (!rows.length) {
    fill($("journey-table"));
    fill($("journey-charts"), h("p.empty", {}, body.judged_until ? "Fewer than five people so far." : "No events yet."));
    return;
  }
  fill($("journey-charts"),
    figure("advance", "Advance rate by stage", barsOf(rows, ADVANCE, "early_dropoff")),
    figure("hesitation", "Hesitation by stage", barsOf(rows, HESITATION, "hesitation")));
  fill($("journey-table"),
    legend(["l-bar", "observed"], ["l-worse", "alerts"], ["l-expected", "expected"], ["l-band", "its 95 % interval"]),
    table("Journey", columns(["Stage", (row) => row.stage]), rows));
  const select = $("stage");
  if (select.options.length !== body.stages.length) {
    fill(select, body.stages.map((name) => h("option", { value: name }, name)));
  }
}

export function segments(body) {
  for (const row of body.segments) if (row.stage === body.stages.at(-1)) delete row.rates[ADVANCE];
  const rows = body.segments.filter((row) => row.segment_label !== "all");
  const hidden = [body.hidden ? `${body.hidden} with fewer than five people are hidden` : "", body.left_out ? `${body.left_out} smaller ones are left out` : ""];
  fill($("segments-table"), rows.length
    ? table("Segments", columns(["Segment", (row) => row.segment_label.replaceAll("=", " = ")]), rows)
    : h("p.empty", {}, "No segments yet."), h("p.quiet", {}, hidden.filter(Boolean).join("; ")));
}

export function leads(body) {
  const all = body.segments.find((row) => row.segment_label === "all");
  if (!all) {
    $("leads-sum").textContent = "";
    fill($("leads"), h("p.empty", {}, "No scored leads yet."));
    return;
  }
  $("leads-sum").textContent = `${count(all.counts.scored)} scored, ${count(all.counts.accepted)} accepted since this worker started`;
  const bands = all.calibration.map((band) => ({ ...band, label: `${Math.round(band.from)}–${Math.round(band.to)}` }));
  const judged = bands.some((band) => band.rate !== null);
  const isSource = (row) => row.segment_label === "all" || Object.keys(row.segment).join() === "source";
  const sources = body.segments.some((row) => row.segment.source);
  const rows = body.segments.filter((row) => !sources || isSource(row)).slice(0, 12);
  const others = body.segments.filter((row) => !rows.includes(row)).slice(0, 50);
  const kept = $("leads").querySelector("details")?.open;
  const columns = [
    ["Source", (row) => row.segment_label.replaceAll("=", " = ").replaceAll(",", ", ").replace(/^source = (?!.*,)/, "")],
    ["Scored", (row) => count(row.counts.scored), true],
    ["Mean", (row) => row.mean_score.toFixed(0), true],
    ["Accepted", (row) => against(row.rates["lead_score_drift.acceptance"], row.levels.lead_score_drift), true],
    ["Verdict", (row) => level(gravest(row.levels))]];
  fill($("leads"),
    judged ? figure("calibration", `Accepted within ${body.acceptance_horizon_days} days, by score`, bands)
      : h("p.empty", {}, `No cohort has reached its ${body.acceptance_horizon_days} days yet: acceptance is not known.`),
    judged ? legend(["l-bar", "observed"], ["l-expected", "as learnt"]) : null,
    h("p.quiet", {}, `Accepted: of those whose ${body.acceptance_horizon_days} days ended in the last ${duration(body.window_s)}, against what is usual`),
    h("div.scroll", { tabindex: "0", role: "region", "aria-label": "Leads by source" }, table("Leads by source", columns, rows)),
    others.length ? h("details", kept ? { open: true } : {}, h("summary", { "data-key": "others" }, `${others.length + body.left_out} other segments`),
      h("div.scroll", { tabindex: "0", role: "region", "aria-label": "Other segments of leads" }, table("Other segments", columns, others))) : null);
}

function age(reached) {
  const seconds = Date.now() / 1000 - reached;
  return seconds < 172800 ? `${duration(Math.max(0, seconds))} old` : time(reached);
}

function freshness(topic) {
  return topic.reached === null ? "nothing yet" : h("span", { "data-reached": topic.reached }, age(topic.reached));
}

/** Ages grow while nothing else changes: that is when they matter. */
export function ages() {
  for (const place of $("data").querySelectorAll("[data-reached]")) place.replaceChildren(age(Number(place.dataset.reached)));
}

export function data(body) {
  const sum = (name) => body.topics.reduce((total, topic) => total + topic[name], 0);
  const consumed = ["applied", "duplicate", "late", "dead_letter"].reduce((total, name) => total + sum(name), 0);
  const bad = sum("dead_letter");
  $("data-sum").textContent = consumed ? `${count(consumed)} items, ${percent(bad / consumed, bad ? 2 : 0)} not understood` : "";
  const reasons = body.topics.flatMap((topic) => Object.entries(topic.reasons).map(([reason, n]) => ({ topic: topic.topic, reason, n })))
    .sort((a, b) => b.n - a.n);
  fill($("data"),
    h("div.scroll", { tabindex: "0", role: "region", "aria-label": "Topics" }, table("Topics", [
      ["Topic", (row) => row.topic],
      ["Newest event", freshness],
      ["Applied", (row) => count(row.applied), true],
      ["Repeats", (row) => count(row.duplicate), true],
      ["Late", (row) => count(row.late), true],
      ["Dead", (row) => (row.dead_letter ? h("span.is-worse", {}, count(row.dead_letter)) : "0"), true]], body.topics)),
    reasons.length ? table("Dead letters", [["Dead letters", (row) => row.reason.replaceAll("_", " ")], ["Topic", (row) => row.topic],
      ["Since start", (row) => count(row.n), true]], reasons)
      : h("p.quiet", {}, body.reasons_known ? "Nothing was refused since this worker started." : "Reasons of dead letters are known where ingest runs."));
}

function tile(name, value, bad = false) {
  return h("div.tile", bad ? { "data-bad": true } : {}, h("dt", {}, name), h("dd", {}, value));
}

export function pipeline(body) {
  const worst = Object.values(body.lag_s).filter((lag) => lag !== null);
  const lag = worst.length ? Math.max(...worst) : null;
  const errors = Object.values(body.detector_errors).reduce((sum, n) => sum + n, 0);
  const ages = body.checkpoints.map((one) => one.age_s).filter((age) => age !== null);
  const last = body.paces.at(-1)?.[1];
  $("pipeline-sum").textContent = `${count(body.watched_streams)} streams, ${count(body.events)} events`;
  const chart = h("div.chart");
  if (body.paces.length > 2) queueMicrotask(() => pace(chart, "pace", body.paces));
  fill($("pipeline"),
    h("dl.tiles", {},
      tile("Events a second", last === undefined ? HIDDEN : count(last)),
      tile("Behind", lag === null ? HIDDEN : lag === 0 ? "0 s" : duration(lag), lag > 60),
      tile("Event to verdict, p99", duration(body.delay_s.watch.p99)),
      tile("Checkpoint age", ages.length ? duration(Math.max(...ages)) : HIDDEN),
      tile("State", bytes(body.checkpoints.reduce((sum, one) => sum + one.size_bytes, 0))),
      tile("Peak memory", bytes(body.peak_memory_bytes)),
      tile("Detector errors", count(errors), errors > 0),
      tile("Waits for Kafka", body.send_waiting_s ? duration(body.send_waiting_s) : "no", body.send_waiting_s > 5)),
    body.paces.length > 2 ? [h("p.quiet", {}, "Events a second, last five minutes"), chart] : null,
    body.waits_for.length ? h("p.is-worse", {}, `Waits for ${body.waits_for.join("; ")}`) : null);
  $("version").textContent = `trustwatch ${body.version}, up since ${when(body.started_at)} ·`;
}
