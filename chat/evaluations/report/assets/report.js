// Shows the evaluation that stands in this page as JSON. Every text of it is hostile: texts become
// text nodes and attribute values, never markup.
"use strict";

const summary = JSON.parse(document.getElementById("summary").textContent);
const rows = JSON.parse(document.getElementById("rows").textContent);
const models = summary.models.map((model) => model.name);
const scorers = summary.models[0].scores.map((score) => score.scorer);

// -- elements

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false)
      element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined));
  return element;
}
const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const body = (id) => document.querySelector(`#${id} .body`);

function table(head, lines) {
  const cell = (tag, content, extra = {}) =>
    content instanceof Node ? content : h(tag, extra, content);
  return h("div", { class: "wide" }, h("table", {},
    h("thead", {}, h("tr", {}, head.map((name) => cell("th", name, { scope: "col" })))),
    h("tbody", {}, lines.map((line) => h("tr", {}, line.map((content, place) =>
      place ? cell("td", content) : cell("th", content, { scope: "row" })))))));
}
const numbers = (...children) => h("td", { class: "number" }, ...children);
const small = (...children) => h("small", {}, ...children);

// -- numbers, with no more digits than they carry

const UNKNOWN = "–";
const count = (value) => value === null || value === undefined ? UNKNOWN : value.toLocaleString("en");
const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;
const digits = (samples) => (samples >= 200 ? 1 : 0);
const percent = (value, samples) =>
  value === null || value === undefined ? UNKNOWN : (100 * value).toFixed(digits(samples));
const interval = (low, high, samples) =>
  low === null ? UNKNOWN : `${percent(low, samples)} to ${percent(high, samples)} %`;
function signed(value, samples) {
  if (value === null) return UNKNOWN;
  const text = percent(Math.abs(value), samples);
  return Number(text) === 0 ? text : (value < 0 ? "−" : "+") + text;
}
function time(ms) {
  if (ms === null || ms === undefined) return UNKNOWN;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return ms < 100000 ? `${(ms / 1000).toPrecision(3)} s` : duration(ms / 1000);
}
function duration(seconds) {
  if (seconds < 100) return `${Math.round(seconds)} s`;
  if (seconds < 6000) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}
function cost(usd) {
  if (usd === null || usd === undefined) return UNKNOWN;
  return `$${usd === 0 || usd >= 1 ? usd.toFixed(2) : usd.toPrecision(2)}`;
}
function moment(seconds) {
  return seconds === null ? UNKNOWN : `${new Date(seconds * 1000).toISOString().slice(0, 16).replace("T", " ")} UTC`;
}
const points = (value) => (Number.isInteger(value) ? String(value) : value.toFixed(2));
function chance(p) {
  return p < 0.001 ? "< 0.001" : p.toFixed(p < 0.1 ? 3 : 2);
}

// -- head

function showHead() {
  const run = summary.evaluation, totals = summary.totals;
  const began = run.created_at, ended = run.ended_at;
  const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));
  const whole = run.status === "completed";
  const costs = [totals.cost_usd, totals.judge_cost_usd].filter((known) => known !== null);
  document.getElementById("head").append(
    h("h1", {}, run.name, " ", h("span", { class: `status ${whole ? "good" : "bad"}` }, run.status)),
    run.description ? h("p", {}, run.description) : null,
    h("dl", { class: "facts" },
      fact("Id", run.id),
      fact("Begun", moment(began)),
      fact("Took", ended === null ? UNKNOWN : duration(ended - began)),
      fact("Asked", `${plural(summary.samples, "sample")} × ${plural(models.length, "model")}` +
        (summary.repeats > 1 ? ` × ${summary.repeats} repeats` : "")),
      fact("Answered", `${count(totals.answered)} of ${count(totals.rows)}`),
      totals.cached ? fact("Cached", count(totals.cached)) : null,
      totals.judge_calls ? fact("Judge calls", count(totals.judge_calls)) : null,
      fact("Cost", costs.length ? cost(costs.reduce((sum, known) => sum + known, 0)) : "unknown"),
      run.round > 1 ? fact("Round", count(run.round)) : null,
      ...Object.entries(run.metadata || {}).map(([name, value]) => fact(name, value))),
  );
  const notices = [];
  if (!whole) notices.push(`This evaluation is ${run.status}: what was not answered by then counts as errored, and is in no score.`);
  if (totals.errored) notices.push([`${plural(totals.errored, "answer")} of ${count(totals.rows)} failed and ${totals.errored === 1 ? "is" : "are"} in no score; `,
    h("code", {}, `chatd eval retry ${run.id}`), " asks again for what failed, and for nothing else."]);
  if (rows.some((row) => row.left_out)) notices.push("The page would be too large: answers with full marks have no text here. results.jsonl has them.");
  document.getElementById("head").append(...notices.map((words) => h("p", { class: "notice" }, words)));
}

// -- scores

function showScores() {
  const head = ["Model", "Coverage",
    ...scorers.map((name, place) => h("th", { scope: "col", class: "number" }, name,
      small(`${summary.models[0].scores[place].type}, percent`))),
    ...["Tokens", "Cost", "Queue", "Model time"].map((name) =>
      h("th", { scope: "col", class: "number" }, name,
        ["Queue", "Model time"].includes(name) ? small("median") : null,
        name === "Tokens" ? small("in · out") : null))];
  const times = (of) => of === null ? [UNKNOWN]
    : [time(of.p50), small(`p95 ${time(of.p95)}`), small(`p99 ${time(of.p99)}`)];
  const lines = summary.models.map((model) => [
    [model.name, small(model.upstream_model ? `${model.provider}: ${model.upstream_model}` : model.model || "")],
    h("td", {}, `${count(model.answered)} of ${count(model.total)}`,
      Object.entries(model.errors).map(([code, times_]) => h("span", { class: "bad" }, `${count(times_)} ${code}`)),
      model.truncated ? h("span", { class: "warn" }, `${count(model.truncated)} cut at max_tokens`) : null,
      model.cached ? small(`${count(model.cached)} cached`) : null),
    ...model.scores.map((score) => numbers(
      h("strong", {}, percent(score.mean, score.samples)),
      small(interval(score.low, score.high, score.samples)),
      small(plural(score.samples, "sample")),
      score.unparsable ? h("span", { class: "warn" }, `${count(score.unparsable)} unparsable`) : null,
      score.errored ? h("span", { class: "bad" }, `${count(score.errored)} errored`) : null)),
    numbers(`${count(model.input_tokens)} · ${count(model.output_tokens)}`,
      model.judge.calls ? small(`judge ${count(model.judge.input_tokens)} · ${count(model.judge.output_tokens)}`) : null),
    numbers(cost(model.cost_usd), model.judge.cost_usd === null ? null : small(`judge ${cost(model.judge.cost_usd)}`)),
    numbers(times(model.queue_ms)), numbers(times(model.model_ms))]);
  body("scores").append(table(head, lines),
    h("p", { class: "soft" }, "Score, its 95 % interval, and the samples that it stands on. Errors are in no score."));
}

// -- comparisons

function inWords(pair) {
  if (pair.samples === 0) return "no common samples";
  if (pair.low === null) return "one sample shows nothing";
  const clear = pair.p < 0.05;
  if (pair.low > 0) return clear ? `${pair.b} scores higher here` : `${pair.b} leans higher, not clearly`;
  if (pair.high < 0) return clear ? `${pair.b} scores lower here` : `${pair.b} leans lower, not clearly`;
  return "no difference shown";
}

function showComparisons() {
  if (!summary.comparisons.length) {
    document.getElementById("comparisons").remove();
    document.querySelector('nav a[href="#comparisons"]').remove();
    return;
  }
  const right = (name, below) => h("th", { scope: "col", class: "number" }, name, below ? small(below) : null);
  const head = ["Score", "Of", "Against", right("Difference", "points of 100"), right("95 % interval"),
    right("Better"), right("Worse"), right("Same"), right("p", "sign test"), right("Samples", "common"), "In words"];
  const lines = summary.comparisons.map((pair) => [pair.scorer, pair.b, pair.a,
    numbers(signed(pair.difference, pair.samples)),
    numbers(pair.low === null ? UNKNOWN : `${signed(pair.low, pair.samples)} to ${signed(pair.high, pair.samples)}`),
    numbers(count(pair.wins)), numbers(count(pair.losses)), numbers(count(pair.ties)),
    numbers(chance(pair.p)), numbers(count(pair.samples)), inWords(pair)]);
  body("comparisons").append(table(head, lines), h("p", { class: "soft" },
    "Sample by sample, on those that every model has a score for. “No difference shown” is not “equal”: " +
    "the interval says how large a difference these samples leave open."));
}

// -- plots

const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#7a5195", "#8c564b"];
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "", "7 3", "2 3", "9 3 2 3"];
const colour = (place) => COLOURS[place % COLOURS.length];
const dash = (place) => DASHES[place % DASHES.length] || null;
const text = (x, y, content, extra = {}) => s("text", { x, y, ...extra }, content);
const cut = (name, length) => (name.length > length ? `${name.slice(0, length - 1)}…` : name);

function figure(title, note, drawing, legend) {
  return h("figure", {}, h("figcaption", {}, title, " ", small(note)), legend || null, drawing);
}

function legend() {
  return h("div", { class: "legend", "aria-hidden": "true" }, models.map((name, place) => h("span", {},
    s("svg", { width: 28, height: 10 }, s("line", { x1: 0, x2: 28, y1: 5, y2: 5, stroke: colour(place),
      "stroke-width": 2.5, "stroke-dasharray": dash(place) })), name)));
}

function scorePlot() {
  const left = 210, width = 860, right = 60, line = 24, top = 24;
  const across = (value) => left + value * (width - left - right);
  const parts = [], told = [];
  let y = top;
  scorers.forEach((name, place) => {
    parts.push(text(0, y + 4, cut(name, 30), { "font-weight": 600 }));
    y += line;
    summary.models.forEach((model, number) => {
      const score = model.scores[place];
      parts.push(text(14, y + 4, cut(model.name, 28)));
      if (score.mean !== null) {
        parts.push(
          s("line", { x1: across(score.low), x2: across(score.high), y1: y, y2: y, stroke: colour(number), "stroke-width": 2.5 }),
          s("circle", { cx: across(score.mean), cy: y, r: 5, fill: colour(number) }),
          text(width - right + 12, y + 4, percent(score.mean, score.samples)));
        told.push(`${name}, ${model.name}: ${percent(score.mean, score.samples)}, ${interval(score.low, score.high, score.samples)}`);
      } else parts.push(text(across(0) + 4, y + 4, "no score", { class: "soft" }));
      y += line;
    });
    y += 6;
  });
  const grid = [0, 0.25, 0.5, 0.75, 1].flatMap((value) => [
    s("line", { x1: across(value), x2: across(value), y1: top, y2: y, class: "grid" }),
    text(across(value), y + 16, 100 * value, { "text-anchor": "middle", class: "soft" })]);
  return figure("Scores", "percent, with 95 % intervals",
    s("svg", { viewBox: `0 0 ${width} ${y + 24}`, role: "img", "aria-label": told.join("; ") }, grid, parts));
}

// The share of answers that took at most so long, on a logarithmic scale of time.
function latencyPlot(title, field) {
  const taken = models.map((name) => rows
    .filter((row) => row.model === name && row[field] !== null && !row.cached)
    .map((row) => Math.max(1, row[field])).sort((one, other) => one - other));
  const all = taken.flat();
  if (!all.length) return null;
  const least = 10 ** Math.floor(Math.log10(all.reduce((a, b) => Math.min(a, b))));
  let most = 10 ** Math.ceil(Math.log10(all.reduce((a, b) => Math.max(a, b))));
  if (most <= least) most = least * 10;
  const left = 46, width = 860, right = 20, top = 10, height = 190;
  const across = (ms) => left + (Math.log(ms / least) / Math.log(most / least)) * (width - left - right);
  const down = (share) => top + (1 - share) * height;
  const curves = taken.map((values, place) => {
    if (!values.length) return null;
    const step = Math.max(1, Math.floor(values.length / 400));
    let path = `M${across(values[0]).toFixed(1)} ${down(0).toFixed(1)}`;
    values.forEach((value, number) => {
      if (number % step === 0 || number === values.length - 1)
        path += `H${across(value).toFixed(1)}V${down((number + 1) / values.length).toFixed(1)}`;
    });
    return s("path", { d: path, fill: "none", stroke: colour(place), "stroke-width": 2, "stroke-dasharray": dash(place) });
  });
  const grid = [0, 0.5, 0.95, 1].flatMap((share) => [
    s("line", { x1: left, x2: width - right, y1: down(share), y2: down(share), class: "grid" }),
    text(left - 6, down(share) + 4, share === 0.95 ? "95 %" : `${100 * share} %`,
      { "text-anchor": "end", class: "soft", ...(share === 1 ? { dy: -3 } : share === 0.95 ? { dy: 5 } : {}) })]);
  for (let at = least; at <= most; at *= 10)
    grid.push(s("line", { x1: across(at), x2: across(at), y1: top, y2: top + height, class: "grid" }),
      text(across(at), top + height + 16, time(at), { "text-anchor": "middle", class: "soft" }));
  const told = summary.models.map((model) => {
    const of = field === "queue_ms" ? model.queue_ms : model.model_ms;
    return of ? `${model.name}: half within ${time(of.p50)}, 95 % within ${time(of.p95)}` : `${model.name}: unknown`;
  });
  return figure(title, "share of answers that took at most so long; cached ones left out",
    s("svg", { viewBox: `0 0 ${width} ${top + height + 24}`, role: "img", "aria-label": told.join("; ") }, grid, curves),
    legend());
}

function timelinePlot() {
  const line = summary.timeline;
  if (!line) return null;
  const parts = line.answered[models[0]].length, seconds = line.step_s;
  const refused = Array.from({ length: parts }, (_, at) => models.reduce((sum, name) => sum + line.refused[name][at], 0));
  const rate = models.map((name) => line.answered[name].map((value) => value / seconds));
  const peak = (values) => values.reduce((one, other) => Math.max(one, other), 0);
  const most = peak(rate.flat()) || 1, mostRefused = peak(refused);
  const left = 46, width = 860, right = 20, top = 10, height = 170, below = mostRefused ? 60 : 0;
  const step = (width - left - right) / parts;
  const down = (value) => top + (1 - value / most) * height;
  const floor = top + height;
  const curves = rate.map((values, place) => s("path", {
    d: values.map((value, at) => `${at ? "L" : "M"}${(left + (at + 0.5) * step).toFixed(1)} ${down(value).toFixed(1)}`).join(""),
    fill: "none", stroke: colour(place), "stroke-width": 2, "stroke-dasharray": dash(place) }));
  const grid = [0, 0.5, 1].flatMap((share) => [
    s("line", { x1: left, x2: width - right, y1: down(share * most), y2: down(share * most), class: "grid" }),
    text(left - 6, down(share * most) + 4, Number((share * most).toPrecision(2)), { "text-anchor": "end", class: "soft" })]);
  const bottom = floor + 22 + below;
  const bars = mostRefused ? refused.map((value, at) => value ? s("rect", { class: "refused",
    x: left + at * step + 0.5, width: Math.max(1, step - 1),
    y: bottom - (value / mostRefused) * (below - 14), height: (value / mostRefused) * (below - 14) }) : null) : [];
  const labels = mostRefused ? [text(left, floor + 20, `refused with 429, at most ${count(mostRefused)} in ${duration(seconds)}`, { class: "soft" }),
    s("line", { x1: left, x2: width - right, y1: bottom, y2: bottom, class: "axis" })] : [];
  const span = parts * seconds;
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => text(left + share * (width - left - right), bottom + 16,
    duration(share * span), { "text-anchor": share === 1 ? "end" : share ? "middle" : "start", class: "soft" }));
  const told = `${models.map((name) => `${name}: ${count(line.answered[name].reduce((a, b) => a + b, 0))} calls answered`).join("; ")}; ${count(refused.reduce((a, b) => a + b, 0))} refused with 429`;
  return figure("Over time", `calls answered per second, judges’ included, in steps of ${duration(seconds)}, from ${moment(line.begins)}`,
    s("svg", { viewBox: `0 0 ${width} ${bottom + 24}`, role: "img", "aria-label": told }, grid, curves, bars, labels, ticks),
    legend());
}

function showPlots() {
  body("plots").append(...[scorePlot(), latencyPlot("Model time", "latency_ms"),
    latencyPlot("Queue time", "queue_ms"), timelinePlot()].filter((part) => part !== null));
}

// -- samples

const PAGE = 50;
const samples = new Map();
for (const row of rows) {
  if (!samples.has(row.sample)) samples.set(row.sample, { id: row.sample, expected: row.expected, rows: [] });
  samples.get(row.sample).rows.push(row);
}
const ids = [...samples.keys()];
const messagesOf = (row) => rows[row.asked].messages;
const FILTERS = {
  all: ["all samples", () => true],
  failed: ["a score below full marks", (row, scores) => scores.some((score) => score.score !== null && score.score < 1)],
  disagree: ["models disagree", null],
  errored: ["errored", (row, scores) => row.status === "errored" || scores.some((score) => score.status === "errored")],
  unparsable: ["unparsable", (row, scores) => scores.some((score) => score.status === "unparsable")],
  cached: ["cached", (row) => row.cached],
};
const state = { filter: "all", scorer: "", model: "", words: "", page: 0, chosen: null, found: ids };

const scoresOf = (row) => Object.entries(row.scores)
  .filter(([name]) => !state.scorer || name === state.scorer).map(([, score]) => score);
const rowsOf = (sample) => sample.rows.filter((row) => !state.model || row.model === state.model);

function meanOf(sample, model, scorer) {
  const values = sample.rows.filter((row) => row.model === model && row.scores[scorer] && row.scores[scorer].score !== null)
    .map((row) => row.scores[scorer].score);
  return values.length ? values.reduce((a, b) => a + b) / values.length : null;
}

function disagree(sample) {
  return (state.scorer ? [state.scorer] : scorers).some((scorer) => {
    const means = models.map((model) => meanOf(sample, model, scorer)).filter((mean) => mean !== null);
    return means.some((mean) => mean !== means[0]);
  });
}

function wordsOf(sample) {
  if (sample.words === undefined)
    sample.words = [sample.id, JSON.stringify(sample.expected),
      ...sample.rows.flatMap((row) => [row.answer || "", row.error ? row.error.code : "",
        ...messagesOf(row).map((message) => message.content || "")])].join("\n").toLowerCase();
  return sample.words;
}

function find() {
  const [, holds] = FILTERS[state.filter], words = state.words.toLowerCase();
  state.found = ids.filter((id) => {
    const sample = samples.get(id);
    const fits = state.filter === "disagree" ? disagree(sample) : rowsOf(sample).some((row) => holds(row, scoresOf(row)));
    return fits && (!words || wordsOf(sample).includes(words));
  });
  state.page = 0;
}

function mark(score) {
  if (score.status === "unparsable") return h("span", { class: "warn" }, "unparsable");
  if (score.status === "errored") return h("span", { class: "bad" }, score.code || "errored");
  if (score.score === 1) return h("span", { class: "good" }, "✓ 1");
  return h("span", { class: score.score === 0 ? "bad" : "warn" }, `${score.score === 0 ? "✗" : "◐"} ${points(score.score)}`);
}

function marksOf(sample, model) {
  const mine = sample.rows.filter((row) => row.model === model);
  return mine.map((row) => h("div", {}, row.status === "errored"
    ? h("span", { class: "bad" }, row.error.code)
    : Object.entries(row.scores).filter(([name]) => !state.scorer || name === state.scorer)
      .map(([name, score]) => h("div", {}, mark(score), scorers.length > 1 && !state.scorer ? h("span", { class: "soft" }, ` ${name}`) : null))));
}

function questionOf(sample) {
  const messages = messagesOf(sample.rows[0]);
  return String(messages[messages.length - 1].content || "").slice(0, 300);
}

function showList() {
  const shown = state.found.slice(state.page * PAGE, (state.page + 1) * PAGE);
  const pages = Math.max(1, Math.ceil(state.found.length / PAGE));
  const columns = state.model ? [state.model] : models;
  document.getElementById("found").textContent = `${count(state.found.length)} of ${plural(ids.length, "sample")}`;
  document.getElementById("list").replaceChildren(
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Sample"), h("th", { scope: "col", class: "question" }, "Question"),
      columns.map((name) => h("th", { scope: "col", class: "score" }, name)))),
    h("tbody", {}, shown.map((id) => {
      const sample = samples.get(id);
      return h("tr", { "data-sample": id, "aria-current": id === state.chosen ? "true" : null, onclick: () => choose(id) },
        h("th", { scope: "row" }, h("a", { href: fragment(id), onclick: (event) => { event.preventDefault(); } }, id)),
        h("td", { class: "question" }, h("span", { class: "excerpt" }, questionOf(sample))),
        columns.map((name) => h("td", { class: "score" }, marksOf(sample, name))));
    })));
  document.getElementById("pages").replaceChildren(...(pages === 1 ? [] : [
    h("button", { type: "button", disabled: state.page === 0, onclick: () => turn(-1) }, "Previous page"),
    ` page ${state.page + 1} of ${pages} `,
    h("button", { type: "button", disabled: state.page === pages - 1, onclick: () => turn(1) }, "Next page")]));
}

function turn(by) {
  state.page += by;
  showList();
}

const fragment = (id) => `#sample=${encodeURIComponent(id.toWellFormed ? id.toWellFormed() : id)}`;

function choose(id, scroll = true) {
  state.chosen = id;
  const at = state.found.indexOf(id);
  if (at >= 0) state.page = Math.floor(at / PAGE);
  showList();
  showDetail();
  try { history.replaceState(null, "", fragment(id)); } catch { /* Some viewers of files refuse it. */ }
  const row = document.querySelector('#list tr[aria-current="true"]');
  if (row) row.scrollIntoView({ block: "nearest" });
  if (scroll) document.getElementById("listed").scrollIntoView({ block: "nearest" });
}

function move(by) {
  if (!state.found.length) return;
  const at = state.found.indexOf(state.chosen);
  const next = at < 0 ? 0 : Math.min(state.found.length - 1, Math.max(0, at + by));
  choose(state.found[next]);
}

const textBlock = (content) => h("div", { class: "text", dir: "auto", tabindex: "0" }, content);
const asText = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 1));

function messageBlocks(messages) {
  return messages.map((message) => [h("div", { class: "soft" }, message.role),
    textBlock(message.content || ""),
    message.images ? h("div", { class: "soft" }, plural(message.images.length, "image")) : null]);
}

function attemptLines(attempts) {
  return attempts.length ? h("details", {}, h("summary", {}, plural(attempts.length, "upstream call")),
    h("ul", { class: "marks" }, attempts.map((attempt) => h("li", {},
      `${attempt.started_at} – ${attempt.ended_at || "?"}: ${attempt.outcome}` +
      `${attempt.upstream_status ? `, status ${attempt.upstream_status}` : ""}, billed ${attempt.billed}, ${attempt.worker}`)))) : null;
}

function scoreLine(name, score) {
  const judge = score.judge;
  return h("li", {}, mark(score), ` ${name}`, score.reason ? h("span", { class: "soft" }, `: ${score.reason}`) : null,
    judge ? h("details", {}, h("summary", {}, `judge: ${plural(judge.tries, "try", "tries")}${judge.cached ? ", cached" : `, ${time(judge.latency_ms)}`}`),
      judge.reply === null ? h("p", { class: "soft" }, "no reply") : textBlock(judge.reply), attemptLines(judge.attempts)) : null);
}

function answerBlock(row, own) {
  const facts = [row.finish_reason && row.finish_reason !== "stop" ? row.finish_reason : null,
    row.cached ? "cached" : row.latency_ms === null ? null : `${time(row.latency_ms)}, ${time(row.queue_ms)} in the queue`,
    row.output_tokens === null ? null : `${count(row.input_tokens)} + ${count(row.output_tokens)} tokens`,
    row.cost_usd === null ? null : cost(row.cost_usd)].filter((fact) => fact !== null);
  return h("div", { class: "answer" },
    h("h3", {}, row.model, summary.repeats > 1 ? ` #${row.repeat}` : ""),
    row.error ? [h("p", { class: "bad" }, row.error.code), textBlock(row.error.message)]
      : row.left_out ? h("p", { class: "soft" }, "full marks; its text is in results.jsonl")
        : row.answer ? textBlock(row.answer) : h("p", { class: "warn" }, `empty answer (${row.finish_reason})`),
    row.reasoning ? h("details", {}, h("summary", {}, "reasoning"), textBlock(row.reasoning)) : null,
    h("ul", { class: "marks" }, Object.entries(row.scores).map(([name, score]) => scoreLine(name, score))),
    facts.length ? h("p", { class: "soft" }, facts.join(" · ")) : null,
    own ? h("details", {}, h("summary", {}, "asked with other messages"), messageBlocks(messagesOf(row))) : null,
    attemptLines(row.attempts), row.job_id ? h("p", { class: "soft" }, row.job_id) : null);
}

function showDetail() {
  const place = document.getElementById("detail");
  const sample = samples.get(state.chosen);
  place.hidden = !sample;
  if (!sample) return;
  const shown = rowsOf(sample), first = sample.rows[0];
  place.replaceChildren();
  fill(place, {}, [
    h("h3", {}, `Sample ${sample.id}`),
    messageBlocks(messagesOf(first)),
    sample.expected === null ? null : [h("div", { class: "soft" }, "expected"), textBlock(asText(sample.expected))],
    h("div", { class: "columns" }, shown.map((row) => answerBlock(row, row.asked !== first.asked)))]);
}

function showSamples() {
  const again = (name) => (event) => { state[name] = event.target.value; find(); showList(); showDetail(); };
  const choice = (label, name, options) => h("label", {}, label, h("select", { id: `by-${name}`, onchange: again(name) },
    options.map(([value, shown]) => h("option", { value }, shown))));
  body("samples").append(
    h("div", { class: "controls" },
      choice("Show", "filter", Object.entries(FILTERS).map(([name, [shown]]) => [name, shown])),
      choice("Score", "scorer", [["", "any"], ...scorers.map((name) => [name, name])]),
      choice("Model", "model", [["", "any"], ...models.map((name) => [name, name])]),
      h("label", {}, "Search", h("input", { id: "words", type: "search", placeholder: "in questions and answers", oninput: again("words") })),
      h("span", { id: "found", role: "status" })),
    h("p", { class: "soft" }, h("kbd", {}, "j"), " next, ", h("kbd", {}, "k"), " previous, ", h("kbd", {}, "/"), " search. A sample’s address is in the link of its id."),
    h("div", { id: "listed", tabindex: "0" }, h("table", { id: "list" })), h("p", { id: "pages", class: "pages" }),
    h("article", { id: "detail", hidden: true, "aria-live": "polite" }));
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName)) return;
    if (event.key === "j") move(1);
    else if (event.key === "k") move(-1);
    else if (event.key === "/") { event.preventDefault(); document.getElementById("words").focus(); }
  });
  find();
  showList();
  const follow = () => {
    if (!location.hash.startsWith("#sample=")) return;
    try {
      const id = decodeURIComponent(location.hash.slice(8));
      if (samples.has(id)) choose(id);
    } catch { /* The address is no sample's. */ }
  };
  addEventListener("hashchange", follow);
  follow();
}

// -- suite

function showSuite() {
  body("suite").append(h("p", { class: "soft" }, "As it was given, without the defaults of what it leaves out."),
    textBlock(JSON.stringify(summary.suite, null, 2)));
}

showHead();
showScores();
showComparisons();
showPlots();
showSamples();
showSuite();
