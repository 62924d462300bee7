// Open and recent findings, and the page of one.
import { series, legend } from "./charts.js";
import { $, amount, count, duration, epoch, fill, h, level, percent, points, table, time, when } from "./dom.js";

export function place(finding) {
  const { stage } = finding.segment;
  return finding.segment_label === "all" ? [stage, "everyone"] : [stage, finding.segment_label.replaceAll(",", ", ").replaceAll("=", " = ")];
}

function change(finding) {
  if (finding.before === null) return "";
  if (finding.unit === "ratio") return points(finding.after - finding.before);
  return finding.before ? `${Math.round(100 * (finding.after / finding.before - 1))} %` : "";
}

function card(finding) {
  const [stage, segment] = place(finding);
  return h("a.finding", {
    href: `#finding=${finding.id}`, "data-key": finding.id, "data-direction": finding.direction, "data-level": finding.level,
    "aria-label": `${finding.level}: ${finding.summary}` },
    h("div.what", {}, level(finding.level), h("strong", {}, finding.title),
      finding.kind && finding.kind !== finding.detector ? h("span.kind", {}, finding.kind.replaceAll("_", " ")) : null),
    h("div.where", {}, h("b", {}, stage), " ", h("span", {}, segment)),
    h("div.much", {}, h("span.from", {}, amount(finding.before, finding.unit)), h("span.arrow", { "aria-hidden": "true" }, "→"),
      h("span.to", {}, amount(finding.after, finding.unit)), h("span.change", {}, change(finding))),
    h("div.meta", {}, h("span", {}, "since ", time(finding.onset)), h("span", {}, `${count(finding.n_after)} seen`),
      h("span", {}, "owner ", h("b", {}, finding.owner))));
}

function nothing(body) {
  const judged = body.learning.some((one) => one.ok + one.warn + one.alert > 0);
  if (!judged) {
    const soonest = body.learning.filter((one) => one.warmup_s).sort((a, b) => a.warmup_s - b.warmup_s)[0];
    const of = soonest ? Math.round(soonest.warmup_s / 3600) : null;
    const seen = soonest ? Math.floor(Math.min(soonest.seen_s, soonest.warmup_s) / 3600) : 0;
    return h("div.empty", {}, h("strong", {}, body.judged_until ? "Learning what is normal" : "No events yet"),
      h("p", {}, !body.judged_until ? "Nothing has been judged: this worker has not seen a whole bucket of events."
        : `${seen} of ${of} h of events; streams with few people take longer. Until then nothing is judged.`),
      of && body.judged_until ? h("progress", { max: of, value: seen, "aria-label": "learnt" }) : null);
  }
  return h("div.empty", {}, h("strong", {}, "No open findings"),
    h("p", {}, body.quiet_since ? `since ${when(body.quiet_since)}` : "since this worker knows of any"));
}

function learning(body) {
  const watched = body.learning.reduce((sum, one) => sum + one.warming + one.ok + one.warn + one.alert, 0);
  const warming = body.learning.reduce((sum, one) => sum + one.warming, 0);
  return watched ? `${count(watched)} streams watched${warming ? `, ${count(warming)} still learning` : ""}` : "";
}

export function render(body) {
  const worse = body.open.filter((one) => one.direction === "worse").length;
  const better = body.open.length - worse;
  $("findings-sum").textContent = [body.open.length ? `${worse} worse${better ? `, ${better} better` : ""}` : "", learning(body)]
    .filter(Boolean).join(" · ");
  fill($("open"), body.open.length ? h("div.cards", {}, body.open.map(card)) : nothing(body));
  const recent = $("recent");
  recent.hidden = !body.recent.length;
  recent.firstElementChild.textContent = `${body.recent.length} ended`;
  fill(recent.lastElementChild, h("ul.ended", {}, body.recent.map((one) => h("li", {},
    h("a", { href: `#finding=${one.id}`, "data-key": `r${one.id}` }, `${one.title} · ${place(one).join(", ")}`), " ",
    h("span.quiet", {}, `${amount(one.before, one.unit)} → ${amount(one.after, one.unit)}, ${when(one.onset)} to ${when(one.resolved_at)}`)))));
}

const NAMES = {
  expected_rate: "expected now", rate_now: "rate now", lost_progressions: "progressions lost", extra_hesitant: "more hesitant people",
  extra_novel: "more people off the beaten track", entered_per_hour_before: "entered an hour, before", entered_per_hour_after: "entered an hour, since",
  lost_by_fewer_entering: "lost because fewer came", explained_segments: "segments it explains", statistic: "evidence (nats)",
  threshold: "needed (nats)", worse_since: "worse still since", psi: "population stability index", lag_s: "known after",
};
const QUIET = /^(before|effect)_(low|high)$|^seen_|^statistic$|^threshold$/;
const SHARE = /rate|_before$|_after$|^band_(share|before|after)|^shift$|^(lost_)?share/;

function evidence(name, value) {
  if (name === "worse_since") return when(value);
  if (name === "lag_s") return duration(value);
  if (/per_hour|per_day|a_day|statistic|threshold|psi/.test(name)) return String(Number(value.toPrecision(3)));
  if (SHARE.test(name) && Math.abs(value) <= 1) return percent(value);
  if (/^band_(from|to)$/.test(name)) return percent(value, 0);
  return Math.abs(value) >= 10 ? count(value) : String(Number(value.toPrecision(2)));
}

/** Evidence as [name, text]: before and after side by side, and what stayed at nothing left out. */
function told(all) {
  const rows = [];
  for (const [name, value] of Object.entries(all)) {
    if (QUIET.test(name)) continue;
    const stem = name.replace(/_(before|after)$/, "");
    const [before, after] = [all[`${stem}_before`], all[`${stem}_after`]];
    const label = (NAMES[name] ?? NAMES[stem] ?? stem.replaceAll("_", " "));
    if (before === undefined || after === undefined) rows.push([NAMES[name] ?? name.replaceAll("_", " "), evidence(name, value)]);
    else if (name.endsWith("_before") && (before || after)) {
      rows.push([label.replace(/, before$/, ""), `${evidence(name, before)} → ${evidence(name, after)}`]);
    }
  }
  return rows;
}

function facts(finding) {
  const e = finding.evidence;
  const between = (low, high) => (low === undefined || high === undefined ? "" : ` (${percent(low)} to ${percent(high)})`);
  const rows = [
    ["Before", `${amount(finding.before, finding.unit)}${between(e.before_low, e.before_high)}`],
    ["Since", `${amount(finding.after, finding.unit)}${between(e.effect_low, e.effect_high)}, on ${count(finding.n_after)}`],
    ["Onset", finding.onset_from ? `${when(finding.onset)} (${when(finding.onset_from)} to ${when(finding.onset_to)})` : when(finding.onset)],
    ["Noticed", `${when(finding.detected_at)}, ${duration(epoch(finding.detected_at) - epoch(finding.onset))} after the onset`],
    ["Ended", finding.resolved_at ? when(finding.resolved_at) : "still open"],
    ["Owner", finding.owner],
    ...(e.statistic === undefined ? [] : [["Evidence", `${e.statistic.toFixed(1)} nats, ${e.threshold?.toFixed(1)} are needed`]]),
  ];
  return h("dl.pairs", {}, rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

function drawn(body, chart) {
  const { finding } = body;
  const shown = body.series.filter((row) => row.rate !== null);
  if (shown.length < 2) {
    return h("p.empty", {}, body.view === null ? "This kind of change has no rate to draw; its numbers are below."
      : "Too little was seen since this worker started to draw it; what was before is in Prometheus.");
  }
  const numbers = table("Observed and expected", [
    ["From", (row) => when(row.from)], ["People", (row) => count(row.n), true], ["Observed", (row) => percent(row.rate), true],
    ["Expected", (row) => percent(row.expected), true]], body.series.toReversed());
  queueMicrotask(() => series(chart, "finding", shown, [
    [epoch(finding.onset), "onset", finding.direction === "better" ? "better" : "worse"], [epoch(finding.detected_at), "noticed", "muted"],
    ...(finding.resolved_at ? [[epoch(finding.resolved_at), "ended", "muted"]] : [])]));
  return [
    legend(["l-ink", "observed"], ["l-expected", "expected"], ["l-band", "its 95 % interval"]), chart,
    h("p.readout.quiet", { "aria-hidden": "true" }),
    h("p.quiet", {}, `${body.view.replaceAll("_", " ").replace(".", ", ")} · seen by this worker since ${when(body.sampled_since)}`),
    h("details", {}, h("summary", {}, "The same in numbers"), h("div.scroll", { tabindex: "0", role: "region", "aria-label": "Series" }, numbers))];
}

/** A form with which the owner says that somebody acts on it; the answer comes with the next look at the line. */
function acknowledge(finding) {
  if (finding.evidence.acknowledged_at !== undefined) return h("p.quiet", {}, `acknowledged ${when(finding.evidence.acknowledged_at)}`);
  const said = h("span.quiet", { role: "status" });
  const note = h("input", { type: "text", name: "note", maxlength: "200", autocomplete: "off", "data-key": "note",
    placeholder: "what you do about it; no names of people" });
  const send = async (event) => {
    event.preventDefault();
    said.textContent = "…";
    try {
      const answer = await fetch("/api/ack", { method: "POST", headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ id: finding.id, note: note.value }) });
      const body = await answer.json();
      said.textContent = answer.ok ? "said; it shows here when the line has taken it up" : body.error;
    } catch {
      said.textContent = "this worker does not answer";
    }
  };
  return h("form.ack", { onsubmit: send }, h("label", {}, "Note ", note), " ",
    h("button", { type: "submit", "data-key": "ack" }, "I act on it"), " ", said);
}

/** The page of one finding; `close` goes back. */
export function detail(body, close) {
  const { finding } = body;
  const [stage, segment] = place(finding);
  const more = told(finding.evidence);
  return [
    h("div.head", {},
      h("h2", { id: "detail-title", tabindex: "-1" }, `${finding.title} at ${stage}`, h("small", {}, segment)),
      h("button.close", { type: "button", "aria-label": "Close", "data-key": "close", onclick: close }, "×")),
    h("p.verdict", { "data-direction": finding.direction }, level(finding.level),
      h("span.big", {}, `${amount(finding.before, finding.unit)} → ${amount(finding.after, finding.unit)}`), h("span.change", {}, change(finding))),
    h("p", {}, finding.summary),
    drawn(body, h("div.chart")),
    h("div.pair", {}, h("section", {}, h("h3", {}, "What is known"), facts(finding)),
      more.length ? h("section", {}, h("h3", {}, "Evidence"), h("dl.pairs", {}, more.map(([name, value]) =>
        [h("dt", {}, name), h("dd", {}, value)]))) : null),
    finding.resolved_at ? null : acknowledge(finding),
    h("p.quiet", {}, "id ", h("code", {}, finding.id)),
  ];
}
