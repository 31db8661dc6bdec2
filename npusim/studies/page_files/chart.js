"use strict";
// A plot of points that pointer and keyboard can walk. Everything drawn is made as an element or a
// text node, never from a string of markup, so names from the data cannot become code.

const make = (parent, name, attributes = {}, text = null) => {
  const space = name === "svg" || parent.namespaceURI.endsWith("svg");
  const source = space ? document.querySelector(".canvas svg").namespaceURI : parent.namespaceURI;
  const element = document.createElementNS(source, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== null) element.textContent = text;
  parent.append(element);
  return element;
};

const byId = (id) => document.getElementById(id);

// ---- numbers as text

const figure = (value) => {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e7 || size < 1e-4) return value.toExponential(2).replace("e+", "e");
  const decimals = Math.max(0, 3 - Math.floor(Math.log10(size)));
  return value.toLocaleString("en", { maximumFractionDigits: Math.min(decimals, 6) });
};

const PREFIXES = [[1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]];
const prefixed = (value, unit = "") => {
  const [factor, prefix] = PREFIXES.find(([f]) => value >= f) ?? [1, ""];
  return `${figure(value / factor)} ${prefix}${unit}`;
};

const times = (ratio) => `${ratio.toFixed(ratio < 9.995 ? 2 : ratio < 99.95 ? 1 : 0)}×`;

// ---- axes

const linearTicks = (low, high, about) => {
  const rough = (high - low) / about;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((s) => s * power).find((s) => s >= rough * (1 - 1e-9));
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) ticks.push(k * step);
  return ticks;
};

const logTicks = (low, high, about) => {
  const decades = Math.log10(high / low);
  if (decades < 0.7) return linearTicks(low, high, about);
  const steps = decades > 0.45 * about ? [1] : decades > 0.2 * about ? [1, 3] : [1, 2, 5];
  const jump = Math.max(1, Math.ceil(decades / about));
  const ticks = [];
  for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p++)
    for (const s of steps) {
      const t = s * 10 ** p;
      if (p % jump === 0 && t >= low * (1 - 1e-9) && t <= high * (1 + 1e-9)) ticks.push(t);
    }
  return ticks;
};

// Room around the values, and the map from a value to a place between `from` and `to` in pixels.
const scale = (values, log, from, to) => {
  let low = Math.min(...values), high = Math.max(...values);
  if (log) {
    const room = Math.max((high / low) ** 0.05, 1.02);
    low /= room; high *= room;
    const width = Math.log(high / low);
    return { low, high, at: (v) => from + ((to - from) * Math.log(v / low)) / width };
  }
  const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  low = low >= 0 ? Math.max(0, low - room) : low - room;
  high += room;
  return { low, high, at: (v) => from + ((to - from) * (v - low)) / (high - low) };
};

// ---- marks: shapes of the same area, told apart without colour

const polygon = (corners) => (x, y, r) =>
  "M" + corners.map(([a, b]) => `${(x + a * r).toFixed(1)} ${(y + b * r).toFixed(1)}`).join("L") + "Z";
const SHAPES = [
  (x, y, r) => `M${(x - r).toFixed(1)} ${y.toFixed(1)}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`,
  polygon([[0, -1.3], [1.15, 0.75], [-1.15, 0.75]]),
  polygon([[-0.9, -0.9], [0.9, -0.9], [0.9, 0.9], [-0.9, 0.9]]),
  polygon([[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]]),
  polygon([[0, 1.3], [1.15, -0.75], [-1.15, -0.75]]),
  polygon([[-0.4, -1.2], [0.4, -1.2], [0.4, -0.4], [1.2, -0.4], [1.2, 0.4], [0.4, 0.4], [0.4, 1.2],
           [-0.4, 1.2], [-0.4, 0.4], [-1.2, 0.4], [-1.2, -0.4], [-0.4, -0.4]]),
  polygon([[-1.3, -0.6], [1.3, -0.6], [1.3, 0.6], [-1.3, 0.6]]),
  polygon([[-0.6, -1.3], [0.6, -1.3], [0.6, 1.3], [-0.6, 1.3]]),
];
const STAR = polygon([...Array(10).keys()].map((k) => {
  const turn = (Math.PI * k) / 5, far = k % 2 ? 0.65 : 1.6;
  return [far * Math.sin(turn), -far * Math.cos(turn)];
}));

const sample = (parent, shape, style) => {
  const svg = make(parent, "svg", { class: "sample", viewBox: "0 0 24 18", "aria-hidden": "true" });
  make(svg, "path", { d: shape(12, 9, 5), class: style });
  return svg;
};

// ---- the plot

// content: {x, y: {label, log, words: number -> text}, points: [{x, y, shape, style, size, words, id, error, best}],
//           draw(svg, sx, sy, box) for what lies below the points, extra: values to leave room for,
//           margin: pixels right of the axes in a wide window}
// points carry `error: {axis, low, high, style}` for an error bar, `best` where Up and Down stop.
class Plot {
  constructor(id, pick = null) {
    this.root = byId(`${id}-plot`);
    this.canvas = this.root.querySelector(".canvas");
    this.svg = this.root.querySelector("svg");
    this.tip = this.root.querySelector(".tip");
    this.said = byId(`${id}-said`);
    this.pick = pick;
    this.at = null;
    this.canvas.addEventListener("pointermove", (e) => this.point(this.nearest(e), false));
    this.canvas.addEventListener("pointerleave", () => this.point(null, false));
    this.canvas.addEventListener("click", (e) => {
      const found = this.nearest(e);
      if (found) { this.point(found, false); this.choose(found); }
    });
    this.canvas.addEventListener("focus", () => {
      if (this.canvas.matches(":focus-visible")) this.point(this.at ?? this.start() ?? null, true);
    });
    this.canvas.addEventListener("blur", () => this.point(null, false));
    this.canvas.addEventListener("keydown", (e) => this.key(e));
    new ResizeObserver(() => this.content && this.width() !== this.drawn && this.paint()).observe(this.root);
  }

  width() { return Math.max(260, Math.floor(this.root.clientWidth)); }

  start() { return this.order.find((p) => p.id === this.content.chosen) ?? this.order[0]; }

  show(content) {
    this.content = content;
    this.order = [...content.points].sort((a, b) => a.x - b.x || a.y - b.y);
    this.at = this.at && (this.order.find((p) => p.id === this.at.id) ?? null);
    this.paint();
  }

  paint() {
    const wide = (this.drawn = this.width());
    if (!this.root.clientWidth) return;
    const narrow = wide < 600, high = narrow ? 350 : Math.min(560, Math.round(wide * 0.46));
    const { x, y, points, extra, margin } = this.content;
    const box = { left: narrow ? 54 : 64, right: wide - (narrow ? 14 : margin ?? 14), top: 34, bottom: high - 50, narrow };
    this.svg.replaceChildren();
    this.svg.setAttribute("viewBox", `0 0 ${wide} ${high}`);
    this.tip.hidden = true;
    if (!points.length) {
      make(this.svg, "text", { x: wide / 2, y: high / 2, "text-anchor": "middle" }, "nothing to show");
      return;
    }
    const errors = (axis) => points.filter((p) => p.error?.axis === axis).flatMap((p) => [p.error.low, p.error.high]);
    const sx = scale([...points.map((p) => p.x), ...errors("x"), ...(extra?.x ?? [])], x.log, box.left, box.right);
    const sy = scale([...points.map((p) => p.y), ...errors("y"), ...(extra?.y ?? [])], y.log, box.bottom, box.top);
    this.axes(sx, sy, box, narrow);
    this.content.draw?.(this.svg, sx, sy, box);
    this.errors(sx, sy);
    for (const p of this.order) Object.assign(p, { px: sx.at(p.x), py: sy.at(p.y), radius: p.size * (narrow ? 0.75 : 1) });
    for (const p of [...this.order].sort((a, b) => (a.best ?? 0) - (b.best ?? 0)))
      make(this.svg, "path", { d: p.shape(p.px, p.py, p.radius), class: p.style, "data-id": p.id });
    const chosen = this.order.find((p) => p.id === this.content.chosen);
    if (chosen) make(this.svg, "circle", { class: "ring", cx: chosen.px, cy: chosen.py, r: chosen.radius + 6 });
    this.halo = make(this.svg, "circle", { class: "halo", r: 0 });
    if (this.active) this.point(this.at, false);
  }

  axes(sx, sy, box, narrow) {
    const { x, y } = this.content, { left, right, top, bottom } = box;
    const ticks = (axis, s, about) => (axis.log ? logTicks : linearTicks)(s.low, s.high, about)
      .map((value) => [value, (axis.words ?? figure)(Number(value.toPrecision(12)))]);
    for (const [value, text] of ticks(x, sx, narrow ? 4 : 8)) {
      const at = sx.at(value);
      make(this.svg, "path", { class: "grid", d: `M${at} ${top}V${bottom}` });
      const anchor = at > right - 16 ? "end" : "middle";
      make(this.svg, "text", { x: Math.min(at, right), y: bottom + 18, "text-anchor": anchor }, text);
    }
    for (const [value, text] of ticks(y, sy, 6)) {
      const at = sy.at(value);
      make(this.svg, "path", { class: "grid", d: `M${left} ${at}H${right}` });
      make(this.svg, "text", { x: left - 7, y: at + 4, "text-anchor": "end" }, text);
    }
    make(this.svg, "path", { class: "frame", d: `M${left} ${top}V${bottom}H${right}` });
    make(this.svg, "text", { class: "title", x: right, y: bottom + 40, "text-anchor": "end" }, x.label);
    make(this.svg, "text", { class: "title", x: 2, y: top - 16 }, y.label);
  }

  errors(sx, sy) {
    for (const { x, y, error } of this.order.filter((p) => p.error)) {
      const across = error.axis === "x", s = across ? sx : sy;
      const [a, b, c] = [s.at(error.low), s.at(error.high), across ? sy.at(y) : sx.at(x)];
      const d = across ? `M${a} ${c - 3}v6m0 -3H${b}m0 -3v6` : `M${c - 3} ${a}h6m-3 0V${b}m-3 0h6`;
      make(this.svg, "path", { class: error.style, d });
    }
  }

  nearest(event) {
    const frame = this.svg.getBoundingClientRect(), unit = this.drawn / frame.width;
    const x = (event.clientX - frame.left) * unit, y = (event.clientY - frame.top) * unit;
    let best = null, least = 18;
    for (const p of this.order) {
      const far = Math.hypot(p.px - x, p.py - y);
      if (far < least) [best, least] = [p, far];
    }
    return best;
  }

  point(p, speak) {
    this.active = Boolean(p);
    this.tip.hidden = !p;
    this.halo?.setAttribute("r", p ? p.radius + 4 : 0);
    if (!p) return;
    this.at = p;
    this.halo.setAttribute("cx", p.px);
    this.halo.setAttribute("cy", p.py);
    const [head, ...rest] = p.words();
    this.tip.replaceChildren();
    make(this.tip, "strong", {}, head);
    for (const line of rest) make(this.tip, "div", {}, line);
    const wide = this.tip.offsetWidth, high = this.tip.offsetHeight, room = this.root.clientWidth;
    const left = p.px + 14 + wide <= room ? p.px + 14 : Math.max(0, Math.min(p.px - wide - 14, room - wide));
    const top = p.py - high - 14 >= 0 ? p.py - high - 14 : p.py + 16;
    this.tip.style.left = `${left}px`;
    this.tip.style.top = `${top}px`;
    if (speak) this.said.textContent = [head, ...rest].join("; ");
  }

  choose(p) { if (this.pick && p.pickable !== false) this.pick(p.id); }

  key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || !this.order.length) return;
    const last = this.order.length - 1, now = this.at ? this.order.indexOf(this.at) : -1;
    const along = (step) => {
      for (let k = now + step; k >= 0 && k <= last; k += step) if (this.order[k].best) return k;
      return now;
    };
    const first = this.order.indexOf(this.start());
    const moves = {
      ArrowRight: () => (now < 0 ? first : Math.min(now + 1, last)), ArrowLeft: () => (now < 0 ? first : Math.max(now - 1, 0)),
      ArrowUp: () => along(1), ArrowDown: () => along(-1), Home: () => 0, End: () => last,
    };
    if (event.key === "Escape") this.point(null, false);
    else if (event.key === "Enter" || event.key === " ") { if (this.at) this.choose(this.at); }
    else if (event.key in moves) {
      const k = moves[event.key]();
      if (k >= 0) this.point(this.order[k], true);
    } else return;
    if (event.key !== "Escape") event.preventDefault();
  }
}
