// The table of verdicts: filters, and links that open what they lead to.

const setUpVerdicts = () => {
  const rows = [...document.querySelectorAll("#claims tbody tr")];
  const texts = rows.map((row) => row.textContent.toLowerCase().replace(/\s+/g, " "));
  const form = byId("claim-filters");
  const apply = () => {
    const verdicts = new Set([...form.querySelectorAll("input[name=verdict]:checked")].map((b) => b.value));
    const study = byId("claim-study").value;
    const words = byId("claim-text").value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, k) => {
      row.hidden = !(verdicts.has(row.dataset.verdict) && (!study || row.dataset.study === study)
                     && words.every((word) => texts[k].includes(word)));
      shown += !row.hidden;
    });
    byId("claims-shown").textContent = `${shown} of ${rows.length} claims shown`;
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();

  const open = () => {
    let name = location.hash.slice(1);
    try { name = decodeURIComponent(name); } catch { /* not an encoded name */ }
    const target = byId(name);
    if (target?.tagName !== "DETAILS") return;
    target.open = true;
    target.scrollIntoView();
    target.querySelector("summary").focus();
  };
  addEventListener("hashchange", open);
  byId("claims").addEventListener("click", (event) => {
    // following the same link a second time changes no address
    if (event.target.closest("a")?.hash === location.hash) open();
  });
  open();

  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details.claim:not([open])")];
    for (const one of closed) one.open = true;
  });
  addEventListener("afterprint", () => { for (const one of closed) one.open = false; });
};
