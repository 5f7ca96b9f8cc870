// The token explorer's view. One module, two ways in: JupyterLab loads it through anywidget (default export), a static
// page has it inline followed by mountAll(name, payload). Nothing is fetched; what is shown is in the payload, which
// opd_lib/report/explore.py writes.

const PAGE = 4000; // tokens shown at once
const STYLE = `
:host { display: block; container-type: inline-size; text-align: start; color-scheme: light; line-height: 1.45;
  --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --card: #ffffff; --sunk: #f6f8fa; --accent: #0b63ce;
  --student: #00796b; --teacher: #8e44ad; --good: #1a7f37; --bad: #b35900;
  font: 14px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: var(--ink); }
:host([data-dark]) { color-scheme: dark;
  --ink: #e6edf3; --soft: #9aa5b1; --line: #3a424d; --card: #15191f; --sunk: #1e242c; --accent: #6cb0ff;
  --student: #35c4ae; --teacher: #cf94f0; --good: #56d364; --bad: #ffa657; }
* { box-sizing: border-box; }
.explorer { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; }
.bar { display: flex; flex-wrap: wrap; gap: 10px 18px; align-items: end; }
label { display: flex; flex-direction: column; gap: 3px; font-size: 12px; color: var(--soft); min-width: 0; }
select, button, input { font: inherit; font-size: 14px; color: var(--ink); accent-color: var(--accent); }
select, button { background: var(--sunk); border: 1px solid var(--line); border-radius: 6px; padding: 4px 8px;
  max-width: 100%; min-height: 32px; }
button { cursor: pointer; }
button:hover:enabled { border-color: var(--accent); }
button:disabled { opacity: .45; cursor: default; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
.step { flex: 1 1 190px; }
.step input { width: 100%; min-height: 32px; margin: 0; }
.step b { color: var(--ink); font-variant-numeric: tabular-nums; }
.key { display: grid; grid-template-columns: minmax(150px, 260px) 1fr; gap: 4px 18px; margin: 12px 0 4px;
  align-items: start; font-size: 12px; color: var(--soft); }
.ramp { position: relative; height: 12px; border-radius: 4px; border: 1px solid var(--line); }
.ramp i { position: absolute; top: -4px; width: 3px; height: 18px; margin-left: -1.5px; background: var(--ink);
  border-radius: 2px; box-shadow: 0 0 0 1px var(--card); }
.ends { display: flex; justify-content: space-between; font-variant-numeric: tabular-nums; }
.prompt { margin: 10px 0 0; padding: 7px 10px; background: var(--sunk); border-radius: 6px; color: var(--soft);
  font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; }
.prompt b { color: var(--ink); font-weight: 600; }
.panels { display: grid; gap: 16px; margin-top: 12px; grid-template-columns: minmax(0, 1fr); }
.panels.two { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); }
.panel { display: flex; flex-direction: column; gap: 8px; min-width: 0; }
.head { display: flex; flex-wrap: wrap; gap: 6px 10px; align-items: center; }
.head select { font-weight: 600; }
.mark { font-weight: 600; } .mark.good { color: var(--good); } .mark.bad { color: var(--bad); }
.note { font-size: 12px; color: var(--soft); }
.mean { display: flex; flex-wrap: wrap; gap: 4px 10px; align-items: center; min-height: 32px; }
svg { overflow: visible; flex: none; }
svg polyline { fill: none; stroke: var(--soft); stroke-width: 1.5; } svg circle { fill: var(--accent); }
.text { border: 1px solid var(--line); border-radius: 6px; padding: 8px; max-height: 22em; overflow: auto;
  font: 14px/1.9 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; position: relative; }
.text span { display: inline-block; padding: 0 5px; margin: 1px; border-radius: 4px; cursor: pointer;
  white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.6; max-width: 100%; }
.text span[hidden] { display: none; }
.text span:focus { outline: none; }
.text span[aria-selected=true] { position: relative; z-index: 1; box-shadow: 0 0 0 2px var(--card), 0 0 0 4px var(--accent); }
.text span.parts { border-inline-start: 3px double currentColor; }
.text span.broken::after { content: "\\a"; white-space: pre; }
.pages { display: flex; gap: 8px; align-items: center; }
.detail { border-radius: 6px; background: var(--sunk); padding: 8px 10px; min-width: 0; }
.detail h4 { margin: 0 0 4px; font-size: 14px; font-weight: 600; }
.detail h4 code { background: var(--card); border: 1px solid var(--line); border-radius: 4px; padding: 0 5px; }
code { font: 13px ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.numbers { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 0 14px; margin: 0 0 8px;
  font-size: 12px; }
.numbers div { display: flex; justify-content: space-between; gap: 6px; border-bottom: 1px solid transparent; }
.numbers dt { color: var(--soft); } .numbers dd { margin: 0; font-variant-numeric: tabular-nums; }
.numbers .now { border-color: var(--accent); } .numbers .now dt { color: var(--ink); }
table { width: 100%; border-collapse: collapse; font-size: 12px; table-layout: fixed; }
th, td { padding: 1px 4px; text-align: start; font-weight: 400; vertical-align: middle; }
thead th { color: var(--soft); } thead th:first-child { width: 28%; }
tbody th { overflow: hidden; text-overflow: ellipsis; white-space: pre; }
tr.said th, tr.said td { background: var(--card); } tr.said th { font-weight: 700; }
tfoot td, tfoot th { color: var(--soft); border-top: 1px solid var(--line); font-variant-numeric: tabular-nums; }
.mass { display: grid; grid-template-columns: 1fr 4.2em; gap: 6px; align-items: center; }
.mass i { display: block; height: 9px; border-radius: 2px; min-width: 1px; }
.mass i.student { background: var(--student); } .mass i.teacher { background: var(--teacher); }
.mass b { font-weight: 400; font-variant-numeric: tabular-nums; text-align: end; }
.keys { margin: 10px 0 0; }
kbd { border: 1px solid var(--line); border-radius: 4px; padding: 0 4px; background: var(--sunk); font-size: 11px; }
@container (max-width: 640px) {
  .explorer { padding: 10px; } .panels.two, .key { grid-template-columns: minmax(0, 1fr); }
  .bar label { flex: 1 1 100%; } .keys { display: none; }
}`;

const HUES = {
  light: { paper: [255, 255, 255], above: [44, 113, 190], below: [224, 104, 12], far: [122, 74, 168] },
  dark: { paper: [21, 25, 31], above: [88, 160, 245], below: [245, 142, 60], far: [178, 128, 232] },
};

// An element with properties, and with children that are elements or text.
function make(tag, properties = {}, ...children) {
  const { data, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  for (const [name, value] of Object.entries(data ?? {})) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// A number with three decimals, and a true minus; what is not known is a dash.
function show(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  return value.toFixed(digits).replace(/^-(?=[0.]*$)/, "").replace("-", "−");
}

// How strong the colour of a value is, from −1 to 1, and the colour itself with readable ink on it.
function shade(value, quantity, isDark) {
  if (value === null || value === undefined) return { background: "transparent", ink: "inherit" };
  const hues = isDark ? HUES.dark : HUES.light;
  const away = Math.max(-1, Math.min(1, (value - quantity.rest) / quantity.extent));
  const hue = !quantity.signed ? hues.far : away > 0 ? hues.above : hues.below;
  const amount = 0.92 * Math.abs(away) ** 0.8;
  const mixed = hues.paper.map((c, i) => Math.round(c + (hue[i] - c) * amount));
  const [r, g, b] = mixed.map((c) => ((c / 255 + 0.055) / 1.055) ** 2.4);
  const light = 0.2126 * r + 0.7152 * g + 0.0722 * b;
  return { background: `rgb(${mixed})`, ink: light > 0.179 ? "#000" : "#fff" };
}

// Whether the page around an element is dark: its own background says so, whatever theme painted it.
function isDarkAround(element) {
  for (let at = element; at; at = at.parentElement ?? at.getRootNode().host) {
    const found = getComputedStyle(at).backgroundColor.match(/[\d.]+/g)?.map(Number);
    if (found && (found.length < 4 || found[3] > 0.5)) return 0.3 * found[0] + 0.59 * found[1] + 0.11 * found[2] < 128;
  }
  return matchMedia("(prefers-color-scheme: dark)").matches;
}

async function unpack(payload) {
  const bytes = Uint8Array.from(atob(payload), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).json();
}

// One response: its head, its text, and what is known of the token that is selected or under the pointer.
class Panel {
  constructor(explorer, number) {
    Object.assign(this, { explorer, number, selected: 0, page: 0, spans: [], row: null, jumps: 0 });
    const options = explorer.data.runs.map((run, i) => make("option", { value: i, textContent: run.label }));
    if (number > 0) options.unshift(make("option", { value: -1, textContent: "no second run" }));
    this.runs = make("select", { data: { "aria-label": number ? "second run" : "run" } }, ...options);
    this.runs.value = number < explorer.data.runs.length ? number : -1;
    this.runs.onchange = () => explorer.update();
    this.mark = make("span", { className: "mark" });
    this.note = make("span", { className: "note" });
    this.mean = make("div", { className: "mean note" });
    this.worst = make("button", { type: "button", onclick: () => this.jump() });
    this.text = make("div", { className: "text", data: { role: "listbox", "aria-orientation": "horizontal" } });
    this.pages = make("div", { className: "pages note" });
    this.detail = make("div", { className: "detail" });
    const head = make("div", { className: "head" }, this.runs, this.mark, this.note);
    this.body = [this.mark, this.note, this.mean, this.text, this.pages, this.detail];
    this.element = make("section", { className: "panel" }, head, this.mean, this.text, this.pages, this.detail);
    const token = (event) => event.target.closest("span")?.place;
    this.text.addEventListener("pointerover", (event) => token(event) !== undefined && this.preview(token(event)));
    this.text.addEventListener("pointerleave", () => this.row && this.explorer.panels.forEach((each) => each.row && each.describe(each.selected)));
    this.text.addEventListener("click", (event) => token(event) !== undefined && this.select(token(event)));
    this.text.addEventListener("focusin", (event) => this.focused(event.target.place));
    this.text.addEventListener("keydown", (event) => this.key(event));
  }

  get run() { return Number(this.runs.value); }

  // The values of a quantity along this response, null where the run has no such quantity.
  values(row = this.row) {
    const found = row?.values[this.explorer.quantityNumber];
    return found ? found.map((v) => (v === null ? null : v / this.explorer.data.parts)) : null;
  }

  // Another response, or the same again: its words go into the spans that are there.
  setRow(row, firstDifference) {
    if (row !== this.row) this.jumps = 0;
    this.row = row;
    for (const part of this.body) part.hidden = this.run < 0;
    if (this.run < 0) return;
    const n = row ? row.tokens.length : 0;
    this.selected = Math.max(0, Math.min(this.selected, n - 1));
    this.page = Math.floor(this.selected / PAGE);
    this.firstDifference = firstDifference;
    this.mark.textContent = row && row.reward !== null ? (row.reward > 0 ? "✓ right" : "✗ wrong") : "";
    this.mark.className = `mark ${row?.reward > 0 ? "good" : "bad"}`;
    const { runs } = this.explorer.data;
    this.text.setAttribute("aria-label", `response of ${runs[this.run].label}, ${n} tokens`);
    const parting = firstDifference === null ? "" : ` · the two part at token ${firstDifference + 1}`;
    this.note.textContent = row ? `${n} tokens${row.finished ? "" : ", cut off"}${parting}` : "no response kept at this step";
    this.fill();
    if (row && n) this.describe(this.selected); else this.detail.replaceChildren();
  }

  fill() {
    const words = this.row?.tokens ?? [], begin = this.page * PAGE, shown = Math.min(PAGE, words.length - begin);
    for (let i = this.spans.length; i < shown; i++) this.spans.push(make("span", { data: { role: "option" } }));
    this.spans.forEach((span, i) => {
      span.hidden = i >= shown;
      if (span.hidden) return;
      span.place = begin + i;
      const word = this.explorer.data.words[words[begin + i]];
      const text = word.replaceAll("\n", "↵") || "∅";
      if (span.textContent !== text) span.textContent = text;
      span.className = `${begin + i === this.firstDifference ? "parts" : ""} ${word.includes("\n") ? "broken" : ""}`;
      if (!span.isConnected) this.text.append(span);
    });
    const n = Math.ceil(words.length / PAGE), turn = (by) => () => this.select((this.page + by) * PAGE);
    this.pages.replaceChildren(...(n < 2 ? [] : [
      make("button", { type: "button", disabled: this.page === 0, onclick: turn(-1), textContent: "‹ earlier" }),
      `tokens ${begin + 1} to ${begin + shown} of ${words.length}`,
      make("button", { type: "button", disabled: this.page === n - 1, onclick: turn(1), textContent: "later ›" }),
    ]));
    this.paint();
  }

  // Colours alone: the spans stay.
  paint() {
    const { quantity, isDark } = this.explorer, values = this.values(), begin = this.page * PAGE;
    for (const [i, span] of this.spans.entries()) {
      if (span.hidden) break;
      const { background, ink } = shade(values?.[begin + i], quantity, isDark);
      span.style.background = background;
      span.style.color = ink;
      span.tabIndex = begin + i === this.selected ? 0 : -1;
      span.setAttribute("aria-selected", begin + i === this.selected);
    }
    this.spans[this.selected - begin]?.setAttribute("aria-label", this.spoken(this.selected));
    this.summary(values);
  }

  spoken(place) {
    const { quantity, data } = this.explorer, value = show(this.values()?.[place]);
    return `token ${place + 1}, ${data.words[this.row.tokens[place]]}: ${quantity.title} ${value} ${quantity.unit}`;
  }

  // The mean over the response, how it went over the steps, and the way to the worst token.
  summary(values) {
    const { quantity, data } = this.explorer, mean = (all) => {
      const there = (all ?? []).filter((v) => v !== null);
      return there.length ? there.reduce((a, b) => a + b, 0) / there.length : null;
    };
    const now = mean(values);
    if (now === null) return this.mean.replaceChildren(`${quantity.title}: not measured in this run`);
    const far = (v) => (v === null ? -Infinity : quantity.worst === "low" ? -v : Math.abs(v - quantity.rest));
    this.order = values.map((_, i) => i).sort((a, b) => far(values[b]) - far(values[a]) || a - b);
    this.worst.textContent = this.jumps ? this.next() : "worst token";
    const track = data.steps.map((_, step) => mean(this.values(this.explorer.row(this.run, step))));
    this.mean.replaceChildren(this.worst, ...sparkline(track, this.explorer.step), `mean ${show(now)} ${quantity.unit}`);
  }

  // What is under the pointer, for as long as it is there.
  preview(place) {
    for (const other of this.explorer.sharing(this, place)) other.describe(place);
    this.describe(place);
  }

  // `mirrored`: the other response has the same token here, and is where the reader is.
  select(place, withFocus = true, mirrored = false) {
    if (!this.row?.tokens.length) return;
    place = Math.max(0, Math.min(place, this.row.tokens.length - 1));
    const page = Math.floor(place / PAGE), before = this.spans[this.selected - this.page * PAGE];
    if (before) { before.tabIndex = -1; before.setAttribute("aria-selected", false); before.removeAttribute("aria-label"); }
    this.selected = place;
    if (page !== this.page) { this.page = page; this.fill(); }
    const span = this.spans[place - page * PAGE];
    span.tabIndex = 0;
    span.setAttribute("aria-selected", true);
    span.setAttribute("aria-label", this.spoken(place));
    if (mirrored) { this.describe(place); return; }
    for (const other of this.explorer.sharing(this, place)) other.select(place, false, true);
    this.describe(place);
    this.explorer.tell(this, place);
    if (withFocus) { span.focus({ preventScroll: true }); this.scrollTo(span); }
  }

  focused(place) {
    if (place !== undefined && place !== this.selected) this.select(place, false);
    else if (place !== undefined) this.describe(place);
  }

  // Only the text scrolls, never the page around it.
  scrollTo(span) {
    const top = span.offsetTop - 8, bottom = span.offsetTop + span.offsetHeight + 8, { text } = this;
    if (top < text.scrollTop) text.scrollTop = top;
    else if (bottom > text.scrollTop + text.clientHeight) text.scrollTop = bottom - text.clientHeight;
  }

  // The worst token; pressed again, the next worst.
  jump() {
    if (!this.order) return;
    const place = this.order[this.jumps++ % this.order.length];
    this.select(place);
    this.worst.textContent = this.next();
  }

  next() { return `next worst (no. ${(this.jumps % this.order.length) + 1})`; }

  key(event) {
    const to = {
      ArrowRight: () => this.selected + 1, ArrowLeft: () => this.selected - 1, Home: () => 0,
      End: () => this.row.tokens.length - 1, ArrowDown: () => this.line(1), ArrowUp: () => this.line(-1),
      PageDown: () => this.selected + PAGE, PageUp: () => this.selected - PAGE,
    }[event.key];
    if (event.altKey || event.ctrlKey || event.metaKey || !(to || event.key === "w") || !this.row) return;
    event.preventDefault();
    event.stopPropagation();
    if (to) this.select(to()); else this.jump();
  }

  // The token on the next line above or below that is nearest to the selected one.
  line(way) {
    const begin = this.page * PAGE, own = this.spans[this.selected - begin];
    let best = this.selected + way, least = Infinity, top = null;
    for (let i = this.selected - begin + way; this.spans[i] && !this.spans[i].hidden; i += way) {
      const span = this.spans[i];
      if (way * (span.offsetTop - own.offsetTop) <= 2) continue;
      if (top !== null && Math.abs(span.offsetTop - top) > 2) break;
      top = span.offsetTop;
      const off = Math.abs(span.offsetLeft + span.offsetWidth / 2 - own.offsetLeft - own.offsetWidth / 2);
      if (off < least) [least, best] = [off, begin + i];
    }
    return best;
  }

  // What is known of one token: every number, and both lists side by side.
  describe(place) {
    const { row } = this, { data, quantity } = this.explorer, word = (i) => data.words[i].replaceAll("\n", "↵");
    const at = (column) => (column?.[place] === null || !column ? null : column[place] / data.parts);
    const numbers = data.quantities.map((each, i) => make("div", { className: each === quantity ? "now" : "" },
      make("dt", { textContent: each.title }), make("dd", { textContent: show(at(row.values[i])) })));
    const by = (key) => at(row.values[data.quantities.findIndex((each) => each.key === key)]);
    this.detail.replaceChildren(
      make("h4", {}, `token ${place + 1}: `, make("code", { textContent: word(row.tokens[place]) })),
      make("dl", { className: "numbers" }, ...numbers), ...this.lists(place, word, by));
    this.detail.style.minHeight = `${Math.max(parseFloat(this.detail.style.minHeight) || 0, this.detail.offsetHeight)}px`;
    this.explorer.point(by(quantity.key));
  }

  lists(place, word, by) {
    const { row } = this, { parts } = this.explorer.data, said = row.tokens[place];
    if (!row.top[place]) return [make("p", { className: "note", textContent: "No lists were kept here." })];
    const share = (column, i) => (column[place]?.[i] === null || !column[place] ? null : column[place][i] / parts);
    const found = row.top[place].map((token, i) => [token, share(row.student, i), share(row.teacher, i)]);
    const total = [1, 2].map((i) => found.reduce((sum, entry) => sum + (entry[i] ?? 0), 0));
    const logp = [by("student_logp"), by("teacher_logp")];
    if (!found.some(([token]) => token === said) && logp[0] !== null && logp[0] !== undefined)
      found.push([said, ...logp.map((value) => (value === null ? null : Math.exp(value)))]);
    found.sort((a, b) => b[1] - a[1]);
    const bar = (value, who) => make("td", {}, make("div", { className: "mass" },
      make("i", { className: who, style: `width:${100 * (value ?? 0)}%` }),
      make("b", { textContent: value === null ? "–" : value < 0.00005 ? "<.0001" : show(value, 4) })));
    const lines = found.map(([token, p, q]) => make("tr", { className: token === said ? "said" : "" },
      make("th", { scope: "row", title: token === said ? `${word(token)}, sampled` : word(token) }, make("code", { textContent: word(token) }), token === said ? " ◂" : ""),
      bar(p, "student"), bar(q, "teacher")));
    const cell = (text, scope) => make(scope ? "th" : "td", { textContent: text, ...(scope ? { scope } : {}) });
    return [make("table", { data: { "aria-label": "most likely tokens of both models" } },
      make("thead", {}, make("tr", {}, cell("token (◂ sampled)", "col"), cell("student", "col"), cell("teacher", "col"))),
      make("tbody", {}, ...lines),
      make("tfoot", {}, make("tr", {}, cell("sum", "row"), cell(show(total[0])), cell(row.teacher.length ? show(total[1]) : "–"))))];
  }
}

// A small curve over the steps, the current one dotted.
function sparkline(track, step) {
  const there = track.filter((v) => v !== null), low = Math.min(...there), high = Math.max(...there);
  if (there.length < 2) return [];
  const x = (i) => (i * 110) / (track.length - 1), y = (v) => (high > low ? 22 - (20 * (v - low)) / (high - low) : 12);
  const node = (tag, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  };
  const svg = node("svg", { width: 110, height: 24, "aria-hidden": "true" });
  const points = track.flatMap((v, i) => (v === null ? [] : [`${x(i)},${y(v)}`]));
  svg.append(node("polyline", { points: points.join(" ") }));
  if (track[step] !== null) svg.append(node("circle", { cx: x(step), cy: y(track[step]), r: 3.5 }));
  return [svg];
}

class Explorer {
  constructor(host, data, tell) {
    Object.assign(this, { host, data, step: 0, quantityNumber: data.first.quantity, isDark: false });
    this.tell = (panel, position) => {
      const { arm, seed } = data.runs[panel.run], { test_set, problem } = data.problems[this.problem];
      const token = data.words[panel.row.tokens[position]];
      tell?.({ arm, seed, test_set, problem, step: data.steps[this.step], position, token });
    };
    this.rows = new Map(data.rows.map((row) => [`${row.run} ${row.problem} ${row.step}`, row]));
    const option = (text, value) => make("option", { value, textContent: text });
    this.problems = make("select", {}, ...data.problems.map((each, i) => option(each.label, i)));
    this.quantities = make("select", {}, ...data.quantities.map((each, i) => option(each.title, i)));
    this.problems.value = data.first.problem;
    this.quantities.value = data.first.quantity;
    this.slider = make("input", { type: "range", min: 0, max: data.steps.length - 1, step: 1, disabled: data.steps.length < 2 });
    this.slider.value = this.step;
    this.stepName = make("span");
    this.ramp = make("div", { className: "ramp", data: { role: "img" } }, make("i", { hidden: true }));
    this.ends = make("div", { className: "ends" });
    this.about = make("div");
    this.prompt = make("p", { className: "prompt" });
    this.panels = [new Panel(this, 0), ...(data.runs.length > 1 ? [new Panel(this, 1)] : [])];
    this.problems.onchange = () => this.update();
    this.slider.oninput = () => { this.step = Number(this.slider.value); this.update(); };
    this.quantities.onchange = () => { this.quantityNumber = Number(this.quantities.value); this.recolour(); };
  }

  get problem() { return Number(this.problems.value); }
  get quantity() { return this.data.quantities[this.quantityNumber]; }
  row(run, step = this.step) { return this.rows.get(`${run} ${this.problem} ${step}`) ?? null; }

  build(root) {
    const field = (name, control, className = "") => make("label", { className }, name, control);
    this.columns = make("div", { className: "panels" }, ...this.panels.map((panel) => panel.element));
    const bar = make("div", { className: "bar" }, field("prompt", this.problems), field("colour by", this.quantities),
      field(this.stepName, this.slider, "step"));
    this.slider.hidden = this.data.steps.length < 2;
    const keys = make("p", { className: "note keys" });
    keys.innerHTML = "In a response: <kbd>←</kbd> <kbd>→</kbd> <kbd>↑</kbd> <kbd>↓</kbd> move, <kbd>w</kbd> goes to the worst token.";
    const key = make("div", { className: "key" }, make("div", {}, this.ramp, this.ends), this.about);
    root.append(make("style", { textContent: STYLE }),
      make("div", { className: "explorer", data: { role: "group", "aria-label": "token explorer" } }, bar, key, this.prompt, this.columns, keys));
  }

  // Another prompt, step or run.
  update() {
    const { prompt, answer } = this.data.problems[this.problem], step = this.data.steps[this.step];
    this.stepName.replaceChildren("training step ", make("b", { textContent: step }), ` of ${this.data.steps.at(-1)}`.repeat(this.data.steps.length > 1));
    this.slider.setAttribute("aria-label", "training step");
    this.slider.setAttribute("aria-valuetext", `step ${step}`);
    this.prompt.replaceChildren(prompt, ...(answer ? ["   answer: ", make("b", { textContent: answer })] : []));
    const rows = this.panels.map((panel) => (panel.run < 0 ? null : this.row(panel.run)));
    const [first, second] = rows.map((row) => row?.tokens);
    let parting = first && second ? first.findIndex((token, i) => token !== second[i]) : -1;
    if (parting < 0 && first && second && second.length > first.length) parting = first.length;
    this.parting = parting < 0 ? Infinity : parting;
    this.columns.classList.toggle("two", this.panels.length > 1 && this.panels[1].run >= 0);
    this.recolour(false);
    this.panels.forEach((panel, i) => panel.setRow(rows[i], Number.isFinite(this.parting) ? this.parting : null));
  }

  // Another quantity or theme.
  recolour(withPanels = true) {
    const { quantity } = this, { rest, extent, signed } = quantity;
    const sign = !signed && (rest > 0 || quantity.key.endsWith("logp")) ? -1 : 1;
    this.low = signed ? rest - extent : rest;
    this.high = signed ? rest + extent : rest + sign * extent;
    const stops = Array.from({ length: 17 }, (_, i) => shade(this.low + ((this.high - this.low) * i) / 16, quantity, this.isDark).background);
    this.ramp.style.background = `linear-gradient(to right, ${stops})`;
    const unit = quantity.unit ? ` ${quantity.unit}` : "";
    const names = signed ? [this.low, rest, this.high] : [this.low, this.high];
    this.ends.replaceChildren(...names.map((v, i) => make("span", { textContent: show(v, 2) + (i === names.length - 1 ? unit : "") })));
    this.ramp.setAttribute("aria-label", `colours from ${show(this.low, 2)} to ${show(this.high, 2)}${unit}`);
    this.about.textContent = quantity.about;
    if (withPanels) for (const panel of this.panels) if (panel.row) { panel.jumps = 0; panel.paint(); panel.describe(panel.selected); }
  }

  // The other responses that have the same tokens up to this one: selected in one, it is selected in both.
  sharing(panel, place) {
    return place < this.parting ? this.panels.filter((each) => each !== panel && each.row) : [];
  }

  // Where on the scale the described token lies.
  point(value) {
    const marker = this.ramp.firstChild, share = (value - this.low) / (this.high - this.low);
    marker.hidden = value === null || value === undefined;
    marker.style.left = `${100 * Math.max(0, Math.min(1, share))}%`;
  }

  retheme() {
    const isDark = isDarkAround(this.host.parentElement ?? this.host);
    this.host.toggleAttribute("data-dark", isDark);
    if (isDark === this.isDark) return;
    this.isDark = isDark;
    this.recolour();
  }
}

// Show `payload` in `host`; `tell` hears of every selected token. Returns what takes it away again.
export async function mount(host, payload, tell) {
  const data = await unpack(payload);
  host.dataset.lmSuppressShortcuts = "true"; // JupyterLab's command keys stay out of the explorer
  const explorer = new Explorer(host, data, tell);
  explorer.build(host.shadowRoot ?? host.attachShadow({ mode: "open" }));
  explorer.update();
  const watch = new MutationObserver(() => explorer.retheme()), media = matchMedia("(prefers-color-scheme: dark)");
  const retheme = () => explorer.retheme();
  for (const part of [document.documentElement, document.body])
    watch.observe(part, { attributes: true, attributeFilter: ["class", "style", "data-theme", "data-jp-theme-light"] });
  media.addEventListener("change", retheme);
  retheme();
  return () => { watch.disconnect(); media.removeEventListener("change", retheme); };
}

// Every place of this name on the page that shows nothing yet.
export function mountAll(name, payload) {
  for (const host of document.querySelectorAll(`[data-opd-tokens="${name}"]:not([data-shown])`)) {
    host.dataset.shown = "true";
    mount(host, payload);
  }
}

export default {
  render({ model, el }) {
    let remove = Promise.resolve(() => {});
    const draw = () => {
      remove.then((end) => end());
      const host = document.createElement("div");
      el.replaceChildren(host);
      remove = mount(host, model.get("payload"), (selected) => { model.set("selected", selected); model.save_changes(); });
    };
    model.on("change:payload", draw);
    draw();
    return () => remove.then((end) => end());
  },
};
