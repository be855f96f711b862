/* The overview: search, filter, sort. */
"use strict";

(() => {
  const { DATA, $, $$, choices, plural, saveFile, showHelp, singleKeys, typing, covered } = Gallery;
  const list = $(".overview");
  document.addEventListener("click", (event) => {
    const wanted = event.target.closest("[data-do]")?.dataset.do;
    if (wanted === "export") saveFile(Object.keys(choices.mine), "all");
    if (wanted === "import") $("#import-file").click();
    if (wanted === "clear-filter") clear();
  });
  document.addEventListener("keydown", (event) => {
    if (typing(event) || event.ctrlKey || event.metaKey || event.altKey || !singleKeys() || covered()) return;
    if (event.key === "/" && list) { event.preventDefault(); $("#search").focus(); }
    if (event.key === "?") showHelp();
  });
  choices.start();
  if (!list) return;

  const items = $$(".overview > li");
  const picked = new Map();
  function picksOf(concept) {
    const here = new Set(DATA.concepts[concept]);
    const all = new Set(Object.entries(choices.mine[concept] ?? {}).filter(([, row]) => row.flag === "pick").map(([id]) => id));
    for (const [id, rows] of Object.entries(choices.others[concept] ?? {})) if (Object.values(rows).some((row) => row.flag === "pick")) all.add(id);
    return [...all].filter((id) => here.has(id)).length;
  }

  function countPicks() {
    for (const item of items) {
      const n = picksOf(item.dataset.concept);
      picked.set(item, n);
      const badge = $(".badge", item);
      badge.hidden = !n;
      badge.textContent = `${n} picked`;
    }
  }

  const sorters = {
    name: (a, b) => a.dataset.concept.localeCompare(b.dataset.concept),
    new: (a, b) => b.dataset.learnt.localeCompare(a.dataset.learnt),
    gain: (a, b) => Number(b.dataset.gain) - Number(a.dataset.gain),
    picks: (a, b) => picked.get(b) - picked.get(a),
  };

  function arrange() {
    const words = $("#search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const [kind, state, owner] = [$("#kind").value, $("#state").value, $("#owner")?.value ?? ""];
    let visible = 0;
    for (const item of items) {
      const own = item.dataset;
      const fits = words.every((word) => own.text.includes(word)) && (!kind || own.kind === kind) && (!owner || own.owner === owner)
        && (!state || own.state === state || (state === "chosen" && picked.get(item) > 0) || (state === "open" && !picked.get(item)));
      item.hidden = !fits;
      visible += fits;
    }
    const by = sorters[$("#sort").value];
    list.append(...[...items].sort((a, b) => by(a, b) || sorters.name(a, b)));
    $("#counter").textContent = visible === items.length ? plural(visible, "concept") : `${visible} of ${plural(items.length, "concept")}`;
    $("#nothing").hidden = visible > 0;
  }

  function clear() {
    for (const control of $$(".finder input, .finder select:not(#sort)")) control.value = "";
    arrange();
  }

  for (const control of $$(".finder input, .finder select")) control.addEventListener("input", arrange);
  choices.listeners.push(countPicks);
  addEventListener("pageshow", arrange); // the browser's Back brings what was typed, and brings it late
  countPicks();
  arrange();
})();
