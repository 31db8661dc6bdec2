// Rooflines: what machines allow against the intensity of a kernel, and what is predicted.

const setUpRooflines = (list) => {
  const HUES = 6;
  const chooser = byId("roofline-workload"), machines = byId("roofline-machines"), kinds = byId("roofline-kinds");
  list.forEach((one, k) => make(chooser, "option", { value: k }, one.workload));
  const plot = new Plot("roofline");
  const now = () => list[Number(chooser.value)];
  const kindsOf = (r) => [...new Set(r.kernels.map((k) => k.kind))];
  const roof = (m, intensity) => Math.min(m.peak, m.bandwidth * intensity);
  const percent = (share) => (share === null || share === undefined ? "–" : `${(100 * share).toFixed(1)} %`);

  const boxes = (set, items, begin) => {
    for (const label of set.querySelectorAll("label")) label.remove();
    items.forEach((text, k) => {
      const label = make(set, "label");
      const box = make(label, "input", { type: "checkbox", value: k });
      box.checked = k < begin;
      label.append(" ");
      if (set === kinds) sample(label, SHAPES[k % SHAPES.length], "kernel m4");
      else sample(label, () => "M1 9H23", `roof m${k % HUES}`);
      label.append(` ${text}`);
    });
  };
  const checked = (set) => new Set([...set.querySelectorAll("input:checked")].map((b) => Number(b.value)));

  const shown = () => {
    const r = now(), names = kindsOf(r), on = checked(machines), wanted = checked(kinds);
    const points = [];
    r.kernels.forEach((kernel, k) => {
      const kind = names.indexOf(kernel.kind);
      if (!wanted.has(kind)) return;
      r.machines.forEach((m, place) => {
        const rate = kernel.rate[m.name], share = kernel.share[m.name];
        if (!on.has(place) || !(rate > 0) || !(kernel.intensity > 0)) return;
        points.push({
          id: `${k}/${place}`, x: kernel.intensity, y: rate, shape: SHAPES[kind % SHAPES.length], style: `kernel m${place % HUES}`,
          size: 3.5 + 11 * Math.sqrt(share ?? 0), kernel, machine: m, share, pickable: false,
          words: () => [kernel.name, `${kernel.kind} on ${m.name}`, `${figure(kernel.intensity)} FLOP/B`,
                        `${prefixed(rate, "FLOP/s")}, ${percent(rate / roof(m, kernel.intensity))} of the roof`, `${percent(share)} of the time`],
        });
      });
    });
    return points;
  };

  const draw = () => {
    const r = now(), on = checked(machines), points = shown();
    const lines = r.machines.map((m, place) => ({ ...m, place })).filter((m) => on.has(m.place));
    const roofs = (svg, sx, sy, box) => {
      let free = -Infinity;
      for (const m of [...lines].sort((a, b) => b.peak - a.peak)) {
        const knee = m.peak / m.bandwidth, style = `roof m${m.place % HUES}`;
        const spots = [sx.low, ...(knee > sx.low && knee < sx.high ? [knee] : []), sx.high];
        const path = spots.map((i) => `${sx.at(i).toFixed(1)} ${Math.min(sy.at(roof(m, i)), box.bottom).toFixed(1)}`);
        make(svg, "path", { class: style, d: `M${path.join("L")}`, "data-machine": m.name });
        if (box.narrow) continue; // no room for names: the samples beside the machines tell
        free = Math.max(sy.at(roof(m, sx.high)) + 4, free + 15);
        make(svg, "text", { class: `machine m${m.place % HUES}`, x: box.right + 6, y: free }, m.name);
      }
    };
    const knees = lines.map((m) => m.peak / m.bandwidth);
    const right = points.length ? Math.max(...points.map((p) => p.x), ...knees.map((k) => 2 * k)) : 1;
    const margin = 16 + 8 * Math.max(0, ...lines.map((m) => m.name.length));
    const extra = points.length ? { x: [right], y: lines.map((m) => roof(m, right) * 1.3) } : null;
    plot.show({ x: { label: "arithmetic intensity [FLOP/B]", log: true }, y: { label: "rate [FLOP/s]", log: true, words: (v) => prefixed(v) }, points, draw: roofs, extra, margin });
    const kernels = new Set(points.map((p) => p.kernel));
    byId("roofline-shown").textContent = `${kernels.size} of ${r.kernels.length} kernels shown on ${lines.length} of ${r.machines.length} machines`;
    table(byId("roofline-table"),
          [{ text: "kernel" }, { text: "kind" }, { text: "machine" }, { text: "intensity [FLOP/B]", number: true }, { text: "rate", number: true },
           { text: "of the roof", number: true }, { text: "of the time", number: true }],
          points.map((p) => [p.kernel.name, p.kernel.kind, p.machine.name, figure(p.x), prefixed(p.y, "FLOP/s"), percent(p.y / roof(p.machine, p.x)), percent(p.share)]),
          null, "Kernels shown in the roofline");
  };

  const change = () => {
    const r = now();
    boxes(machines, r.machines.map((m) => m.name), 2);
    boxes(kinds, kindsOf(r), Infinity);
    draw();
  };
  chooser.addEventListener("change", change);
  for (const set of [machines, kinds]) set.addEventListener("change", draw);
  change();
};
