// The designs: a point each, filters by what they differ in, and one picked to look into.

const setUpDesigns = (d) => {
  const rows = [...d.front.keys()];
  const objective = Object.fromEntries(d.objectives.map((o) => [o.name, o]));
  const column = (name) => d.points[name];
  const value = (name, k) => (column(name)[k] === null ? null : column(name)[k] * objective[name].scale);
  const amount = (name, raw) => (raw === null || raw === undefined ? "–" : `${figure(raw * objective[name].scale)} ${objective[name].unit}`);
  const title = (k) => (k === d.nominal ? `Design ${k + 1} (nominal)` : `Design ${k + 1}`);
  const ofAxis = (axis, k) => axis.values[column(axis.name)[k]];

  // What a design is compared with: the baselines, then the nominal design.
  const baselines = d.baselines.map((b) => ({ ...b }));
  if (d.nominal !== null) {
    const own = Object.fromEntries(d.objectives.map((o) => [o.name, column(o.name)[d.nominal]]));
    baselines.push({ name: "nominal design", ...own, time: d.time.ms[d.nominal], energy: d.energy.mj[d.nominal] });
  }
  const fastest = rows.reduce((a, b) => (column("wall_s")[b] < column("wall_s")[a] ? b : a), 0);
  let chosen = d.nominal ?? fastest;

  const pick = (k) => { chosen = k; drawPlot(); drawPanel(); };
  const plot = new Plot("design", pick);

  const select = (id, options, start) => {
    const element = byId(id);
    options.forEach((text, k) => make(element, "option", { value: k }, text));
    element.value = start;
    return element;
  };
  const named = d.objectives.map((o) => `${o.label} [${o.unit}]`);
  const across = select("design-x", named, 0), up = select("design-y", named, Math.min(1, named.length - 1));
  const beside = select("design-baseline", baselines.map((b) => b.name), baselines.length ? d.baseline : "");
  if (!baselines.length) beside.closest("p").hidden = true;
  const base = () => baselines[Number(beside.value)] ?? null;

  const form = byId("design-filters");
  d.axes.forEach((axis, a) => {
    const set = make(form, "fieldset");
    make(set, "legend", {}, axis.label);
    axis.values.forEach((text, v) => {
      const label = make(set, "label");
      make(label, "input", { type: "checkbox", checked: "", value: v, "data-axis": a });
      label.append(` ${text}`);
    });
  });
  const kept = () => {
    const off = d.axes.map(() => new Set());
    for (const one of form.querySelectorAll("input:not(:checked)")) off[one.dataset.axis].add(Number(one.value));
    return rows.filter((k) => d.axes.every((axis, a) => !off[a].has(column(axis.name)[k])));
  };

  const shapeOf = (k) => SHAPES[column("launch")[k] % SHAPES.length];
  const words = (k) => () => [
    title(k) + (d.front[k] ? ", on the Pareto front" : ""),
    ...d.objectives.map((o) => `${o.label}: ${amount(o.name, column(o.name)[k])}`),
    ...d.axes.map((axis) => `${axis.label}: ${ofAxis(axis, k)}`),
  ];
  const errorBar = (k, x, y, log) => {
    const axis = x === "wall_s" ? "x" : y === "wall_s" ? "y" : null;
    const [low, high] = [column("wall_low_s")[k], column("wall_high_s")[k]];
    if (!axis || low === null || high === null || (log && !(low > 0)) || !(d.front[k] || k === chosen)) return null;
    const s = objective.wall_s.scale;
    return { axis, low: low * s, high: high * s, style: k === chosen ? "error chosen" : "error" };
  };
  // Corners of the line below which none of the shown designs lies (less is better in both).
  const stairs = (points) => {
    const line = [];
    let least = Infinity;
    for (const p of [...points].sort((a, b) => a.x - b.x || a.y - b.y))
      if (p.y < least) { line.push(p); least = p.y; }
    return line;
  };

  const drawPlot = () => {
    const x = d.objectives[across.value].name, y = d.objectives[up.value].name, log = byId("design-log").checked;
    const shown = kept();
    const fits = (one) => one !== null && one !== undefined && (one > 0 || !log);
    const drawable = shown.filter((k) => fits(column(x)[k]) && fits(column(y)[k]));
    const points = drawable.map((k) => ({
      id: k, x: value(x, k), y: value(y, k), shape: shapeOf(k), size: d.front[k] ? 6 : 4.5, best: d.front[k],
      style: d.front[k] ? "mark best" : "mark", words: words(k), error: errorBar(k, x, y, log),
    }));
    const line = stairs(points);
    const other = byId("design-with").checked ? base() : null;
    if (other && points.length && fits(other[x]) && fits(other[y]))
      points.push({
        id: "baseline", x: other[x] * objective[x].scale, y: other[y] * objective[y].scale, shape: STAR, size: 7,
        style: "mark other", pickable: false,
        words: () => [other.name, ...d.objectives.map((o) => `${o.label}: ${amount(o.name, other[o.name])}`)],
      });
    const draw = (svg, sx, sy) => {
      const at = line.map((p) => [sx.at(p.x), sy.at(p.y)]);
      const path = at.map(([a, b], k) => (k ? `H${a.toFixed(1)}V${b.toFixed(1)}` : `M${a.toFixed(1)} ${b.toFixed(1)}`));
      make(svg, "path", { class: "stairs", d: path.join("") });
    };
    const label = (name) => `${objective[name].label} [${objective[name].unit}]`;
    plot.show({ x: { label: label(x), log }, y: { label: label(y), log }, points, draw, chosen });
    const front = shown.filter((k) => d.front[k]);
    const lost = shown.length - drawable.length;
    byId("designs-shown").textContent = `${shown.length} of ${rows.length} designs shown, ${front.length} of them on the Pareto front`
      + (lost ? `; ${lost} cannot be drawn: a value is missing or not positive` : "");
    drawFront(front.sort((a, b) => column(x)[a] - column(x)[b]));
  };

  const drawFront = (front) => {
    const heads = [{ text: "design" }, ...d.objectives.map((o) => ({ text: `${o.label} [${o.unit}]`, number: true })), ...d.axes.map((a) => ({ text: a.label }))];
    const button = (k) => (box) => {
      const one = make(box, "button", { type: "button", "data-pick": k }, `Pick ${k + 1}`);
      one.addEventListener("click", () => pick(k));
    };
    const held = document.activeElement?.dataset?.pick;
    table(byId("design-front"), heads, front.map((k) => [
      button(k), ...d.objectives.map((o) => figure(value(o.name, k))), ...d.axes.map((a) => ofAxis(a, k)),
    ]), null, "Designs on the Pareto front among those shown");
    // the table was made anew: give the focus back to the button that had it
    if (held !== undefined) byId("design-front").querySelector(`[data-pick="${held}"]`)?.focus();
  };

  // How a design compares, in words: times as a speed, everything else as a multiple.
  const difference = (k, other) => {
    if (!other) return "nothing to compare with";
    const said = [], unknown = [];
    for (const o of d.objectives) {
      const own = column(o.name)[k], theirs = other[o.name];
      if (own === null || !(own > 0) || theirs === null || theirs === undefined || !(theirs > 0)) { unknown.push(o.label); continue; }
      if (o.name !== "wall_s") { said.push(`${times(own / theirs)} the ${o.label}`); continue; }
      const speed = theirs / own, flip = speed < 1, ratio = flip ? 1 / speed : speed;
      const ends = [column("wall_low_s")[k], column("wall_high_s")[k]].map((t) => (flip ? t / theirs : theirs / t));
      const range = ends.every((e) => Number.isFinite(e)) ? ` (${times(Math.min(...ends))} to ${times(Math.max(...ends))})` : "";
      said.push((times(ratio) === "1.00×" ? "as fast" : `${times(ratio)} ${flip ? "slower" : "faster"}`) + range);
    }
    const rest = unknown.length ? `; not comparable: ${unknown.join(", ")}` : "";
    return `Against ${other.name}: ${said.join(", ") || "nothing to compare"}${rest}`;
  };

  const drawPanel = () => {
    const k = chosen, other = base();
    byId("picked-title").textContent = `${title(k)}${d.front[k] ? ", on the Pareto front" : ""}`;
    byId("picked-difference").textContent = difference(k, other);
    table(byId("picked-parameters"), [{ text: "parameter" }, { text: "value" }],
          d.axes.map((axis) => [axis.label, ofAxis(axis, k)]), null, "Parameters of the picked design");
    const [low, high] = [column("wall_low_s")[k], column("wall_high_s")[k]];
    const own = (o) => (box) => {
      make(box, "span", {}, figure(value(o.name, k)));
      if (o.name === "wall_s" && low !== null && high !== null)
        make(box, "span", { class: "small" }, `${figure(low * o.scale)} to ${figure(high * o.scale)}`);
    };
    const ratio = (o) => (other && other[o.name] > 0 && column(o.name)[k] !== null ? times(column(o.name)[k] / other[o.name]) : "–");
    table(byId("picked-totals"),
          [{ text: "total" }, { text: "design", number: true },
           ...(other ? [{ text: "compared", number: true }, { text: "ratio", number: true }] : [])],
          d.objectives.map((o) => [`${o.label} [${o.unit}]`, own(o), ...(other ? [figure(other[o.name] == null ? null : other[o.name] * o.scale), ratio(o)] : [])]),
          null, "Totals of the picked design");
    breakdown(byId("picked-time"), d.time.kinds, d.time.ms[k], other?.time ?? null, "Time of the picked design by kind");
    breakdown(byId("picked-energy"), d.energy.blocks, d.energy.mj[k], other?.energy ?? null, "Energy of the picked design by block");
  };

  const legend = byId("design-legend");
  d.axes[0].values.forEach((text, v) => {
    const item = make(legend, "li");
    sample(item, SHAPES[v % SHAPES.length], "mark");
    item.append(` ${text}`);
  });
  for (const [shape, style, text] of [[SHAPES[0], "mark best", "on the Pareto front, with its band"], [SHAPES[0], "ring", "picked"], [STAR, "mark other", "compared with"],
                                      [() => "M2 4H10V12H22", "stairs", "best of those shown in these two"]]) {
    const item = make(legend, "li");
    sample(item, shape, style);
    item.append(` ${text}`);
  }

  const swap = (one, two) => {
    let before = one.value;
    one.addEventListener("change", () => {
      if (one.value === two.value && named.length > 1) two.value = before;
    });
    return () => { before = one.value; };
  };
  const remember = [swap(across, up), swap(up, across)];
  byId("design-axes").addEventListener("change", () => { for (const r of remember) r(); drawPlot(); drawPanel(); });
  form.addEventListener("change", drawPlot);
  drawPlot();
  drawPanel();
};
