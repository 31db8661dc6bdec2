// The panel of a picked design: tables of totals and of where time and energy go.

const table = (element, heads, rows, foot = null, caption = null) => {
  element.replaceChildren();
  if (caption) make(element, "caption", { class: "unseen" }, caption);
  const number = (k) => (heads[k].number ? { class: "n" } : {});
  const head = make(make(element, "thead"), "tr");
  heads.forEach((h, k) => make(head, "th", { scope: "col", ...number(k) }, h.text));
  const fill = (parent, cells) => {
    const row = make(parent, "tr");
    cells.forEach((cell, k) => {
      const box = make(row, k ? "td" : "th", { ...(k ? {} : { scope: "row" }), ...number(k) });
      if (typeof cell === "function") cell(box);
      else box.textContent = cell;
    });
  };
  const body = make(element, "tbody");
  for (const cells of rows) fill(body, cells);
  if (foot) fill(make(element, "tfoot"), foot);
};

// Bars of parts, and of the same parts of what it is compared with where those are known.
const breakdown = (element, names, values, base, caption) => {
  const sum = (list) => list.reduce((a, b) => a + (b ?? 0), 0);
  const whole = sum(values), most = Math.max(...values, ...(base ?? [0]), 1e-300);
  const bar = (box, value, style) => {
    make(box, "span", { class: style }).style.width = `${(100 * (value ?? 0)) / most}%`;
  };
  const change = (a, b) => `${a - b > 0 ? "+" : a - b < 0 ? "−" : ""}${figure(Math.abs(a - b))}`;
  const heads = [{ text: "part" }, { text: "design", number: true }, { text: "%", number: true }];
  if (base) heads.push({ text: "compared", number: true }, { text: "change", number: true });
  const cells = (name, value, other) => [
    name, figure(value), whole > 0 ? ((100 * value) / whole).toFixed(1) : "–",
    ...(base ? [figure(other), other === null || other === undefined ? "–" : change(value, other)] : []),
  ];
  const rows = names.map((name, k) => {
    const [, ...rest] = cells(name, values[k], base?.[k]);
    const first = (box) => {
      make(box, "span", {}, name);
      bar(box, values[k], "bar");
      if (base) bar(box, base[k], "bar base");
    };
    return [first, ...rest];
  });
  table(element, heads, rows, cells("all", whole, base ? sum(base) : null), caption);
};
