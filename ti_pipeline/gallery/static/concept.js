/* A concept's page: its pictures, what is shown of them and in which order. */
"use strict";

(() => {
  const { DATA, SERVER, $, $$, choices, element, me, plural, root, settings, say } = Gallery;
  const { concept, pictures } = DATA;
  const cards = new Map($$(".card").map((card) => [card.dataset.id, card]));
  const order = [...cards.keys()];
  const streamOrder = [...order].sort((a, b) => pictures[a].place - pictures[b].place || pictures[a].brief - pictures[b].brief);
  const stacks = new Map(); // the best of almost equal pictures: the others
  for (const id of order) if (pictures[id].stack !== id) stacks.set(pictures[id].stack, [...(stacks.get(pictures[id].stack) ?? []), id]);
  const opened = new Set();
  const filter = { flag: "", stars: 0, who: "anyone" };
  const marked = [];
  let current = null;
  let view = "rows";
  let before = []; // what was shown until now, in order

  const stateOf = (id) => choices.of(concept, id);
  const said = (id) => (filter.who === "me" ? [stateOf(id)] : choices.everyone(concept, id));
  const filtering = () => Boolean(filter.flag || filter.stars);
  function passes(id) {
    if (!filtering()) return true;
    const rows = said(id);
    const flags = rows.map((row) => row.flag).filter(Boolean);
    if (filter.flag === "none" ? flags.length : filter.flag && !flags.includes(filter.flag)) return false;
    return !filter.stars || rows.some((row) => row.stars >= filter.stars);
  }
  const showsAll = () => root.classList.contains("all");
  const stacked = () => !filtering() && !showsAll();
  const isShown = (id) => passes(id) && (!stacked() || (pictures[id].best && (pictures[id].stack === id || opened.has(pictures[id].stack))));
  const inOrder = () => {
    const plain = view === "stream" ? streamOrder : order;
    if (!stacked() || !opened.size) return plain;
    return plain.flatMap((id) => (opened.has(id) ? [id, ...stacks.get(id)] : opened.has(pictures[id].stack) ? [] : [id]));
  };
  const shown = () => inOrder().filter(isShown);
  const picks = () => order.filter((id) => choices.everyone(concept, id).some((row) => row.flag === "pick"));

  // Controls are made when a card first comes near the screen: a page of hundreds opens as fast as one of ten.
  const controls = $("#controls").content;
  const tick = $("#tick").content;
  function equip(card) {
    if ($(".choose", card)) return;
    $(".rank", card).after(tick.cloneNode(true), controls.cloneNode(true));
    $(".choose", card).setAttribute("aria-label", `Choose: ${pictures[card.dataset.id].label}`);
    for (const button of $$("button", card)) button.tabIndex = card.dataset.id === current ? 0 : -1;
    paint(card);
  }
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) { equip(entry.target); near.unobserve(entry.target); }
  }, { rootMargin: "600px" });

  function paintControls(within, state) {
    $("[data-do=pick]", within)?.setAttribute("aria-pressed", state.flag === "pick");
    $("[data-do=reject]", within)?.setAttribute("aria-pressed", state.flag === "reject");
    for (const star of $$("[data-do=stars]", within)) {
      star.classList.toggle("lit", Number(star.dataset.stars) <= state.stars);
      star.setAttribute("aria-pressed", Number(star.dataset.stars) === state.stars);
    }
  }

  function paint(card) {
    const id = card.dataset.id;
    const flags = choices.everyone(concept, id).map((row) => row.flag);
    card.classList.toggle("picked", flags.includes("pick"));
    card.classList.toggle("rejected", flags.includes("reject") && !flags.includes("pick"));
    card.classList.toggle("pending", choices.isWaiting(concept, id));
    paintControls(card, stateOf(id));
    $(".tick", card)?.setAttribute("aria-pressed", marked.includes(id));
    const others = Object.values(choices.others[concept]?.[id] ?? {});
    let list = $(".others", card);
    if (!others.length) { list?.remove(); return; }
    if (!list) $(".told", card).append(list = element("p", { class: "others" }));
    list.replaceChildren(...others.map((row) => element("bdi", { class: row.flag }, `${nameOf(row)} ${describe(row)}`)));
  }

  const nameOf = (row) => choices.names[row.person] || row.name || "Someone";
  function describe(row) {
    return [row.flag === "pick" ? "picked" : row.flag === "reject" ? "rejected" : "", row.stars ? "★".repeat(row.stars) : ""].filter(Boolean).join(" ");
  }

  // ── stacks of pictures that are almost the same ──

  function paintStack(lead) {
    const button = $(".stack", cards.get(lead));
    const own = picks();
    const inside = stacks.get(lead).filter((id) => own.includes(id)).length;
    $(".alike", button).textContent = `1 + ${stacks.get(lead).length} alike${inside && !opened.has(lead) ? `, ${inside} picked` : ""}`;
    button.setAttribute("aria-expanded", opened.has(lead));
  }

  function toggleStack(id) {
    const lead = pictures[id].stack;
    if (!stacks.has(lead) || !stacked()) return;
    const open = !opened.has(lead);
    if (open) opened.add(lead); else opened.delete(lead);
    for (const member of [lead, ...stacks.get(lead)]) cards.get(member).classList.toggle("opened", open);
    arrange();
    if (!open && id !== lead) makeCurrent(lead);
    say(open ? `${plural(stacks.get(lead).length, "picture")} more, almost the same` : "Stack closed");
  }

  function layOut() {
    const wanted = inOrder();
    const home = (id) => (view === "stream" ? $("#stream .cards") : $(`#brief-${pictures[id].brief} .cards`));
    const lies = $$(".card").every((card, k) => card.dataset.id === wanted[k] && card.parentElement === home(wanted[k]));
    if (lies) return;
    const focused = document.activeElement;
    for (const id of wanted) home(id).append(cards.get(id));
    if (focused !== document.activeElement) focused.focus({ preventScroll: true }); // what is moved loses it
  }

  function arrange() {
    root.classList.toggle("filtered", filtering());
    layOut();
    for (const [id, card] of cards) card.hidden = !passes(id);
    for (const section of $$(".brief[data-brief]")) {
      const own = order.filter((id) => String(pictures[id].brief) === section.dataset.brief);
      const visible = own.filter(isShown).length;
      section.hidden = view !== "rows" || (filtering() && !visible);
      const leads = own.filter((id) => pictures[id].best && pictures[id].stack === id).length;
      $(".of", section).textContent = filtering() ? `${visible} of ${own.length}` : showsAll() ? `all ${own.length}` : `${leads} best of ${own.length}`;
    }
    const now = shown();
    $("#stream .count").textContent = `${now.length} of ${order.length}`;
    $("#nothing").hidden = now.length > 0 || !filtering() || view === "versus";
    const focused = document.activeElement?.closest(".card")?.dataset.id;
    if (focused && !isShown(focused)) { // it has gone from under the hands: its next neighbour takes the focus
      const next = before.slice(before.indexOf(focused) + 1).find(isShown) ?? now.at(-1);
      if (next) makeCurrent(next);
    }
    if (now.length && !now.includes(current)) makeCurrent(now[0], false);
    before = now;
    count();
  }

  function count() {
    const picked = picks().length;
    const rejected = order.filter((id) => stateOf(id).flag === "reject").length;
    $("#counter").textContent = `${picked} picked`;
    $("#counter").title = `${picked} picked, ${rejected} rejected, ${order.length} candidates`;
    $("#scope-picks").textContent = picked;
    $("#scope-shown").textContent = shown().length;
    $("#undo").disabled = !choices.past.length;
    $("#compare-button").disabled = marked.length < 1;
    $("#compare-count").textContent = marked.length ? String(marked.length) : "";
    for (const lead of stacks.keys()) paintStack(lead);
    if (SERVER === null) return;
    const saved = $("#saved");
    const { trouble, failed, waiting } = choices;
    saved.hidden = false;
    saved.classList.toggle("waiting", waiting.size > 0 && Boolean(trouble || failed));
    saved.textContent = !waiting.size ? "Saved" : trouble ? `${waiting.size} not saved: ${trouble}` : failed ? `${waiting.size} not saved yet, trying again` : "Saving …";
    saved.title = trouble && waiting.size ? "Your choices are kept in this browser, and sent with the next one." : "";
  }

  choices.listeners.push((rows) => {
    for (const { concept: whose, picture } of rows) if (whose === concept && cards.has(picture)) paint(cards.get(picture));
    if (filtering()) arrange(); else count();
    people();
  });

  function choose(id, { flag, stars }) {
    const own = stateOf(id);
    const row = { concept, picture: id, flag: flag ?? own.flag, stars: stars ?? own.stars };
    if (row.flag !== own.flag || row.stars !== own.stars) choices.change([row]);
  }

  /** The one card that the Tab key stops at. */
  function makeCurrent(id, focus = true) {
    const card = cards.get(id);
    if (!card) return;
    const last = cards.get(current);
    if (last && last !== card) for (const stop of $$("a, button", last)) stop.tabIndex = -1;
    current = id;
    equip(card);
    for (const stop of $$("a, button", card)) stop.tabIndex = 0;
    if (!focus) return;
    $(".frame", card).focus({ preventScroll: true });
    card.scrollIntoView({ block: "nearest" });
  }

  function mark(id) {
    const at = marked.indexOf(id);
    if (at >= 0) marked.splice(at, 1);
    else if (marked.length === 4) { say("Four at most: take one out first."); return; }
    else marked.push(id);
    paint(cards.get(id));
    count();
  }

  // ── view ──

  function setView(wanted) {
    if (wanted === "versus" && !DATA.versus.length) return;
    view = wanted;
    settings.set("view", view);
    for (const button of $$("[data-view]")) button.setAttribute("aria-pressed", button.dataset.view === view);
    $("#stream").hidden = view !== "stream";
    for (const section of $$(".versus")) section.hidden = view !== "versus";
    arrange();
  }

  function setAll(all) {
    root.classList.toggle("all", all);
    for (const button of $$("[data-show]")) button.setAttribute("aria-pressed", (button.dataset.show === "all") === all);
    arrange();
  }

  function setSize(pixels) {
    const size = Math.max(112, Math.min(512, pixels));
    $("#size").value = size;
    $("#briefs").style.setProperty("--size", `${size}px`);
    settings.set("size", size);
  }

  function setFilter() {
    filter.flag = $("input[name=flag]:checked").value;
    filter.stars = Number($("input[name=stars]:checked").value);
    filter.who = $("input[name=who]:checked").value;
    const names = [{ pick: "Picked", reject: "Rejected", none: "Not decided" }[filter.flag], filter.stars ? `★ ${filter.stars}${filter.stars < 5 ? "+" : ""}` : ""];
    $("#filter-name").textContent = names.filter(Boolean).join(", ") || "Filter";
    $("#filter-button").classList.toggle("on", filtering());
    arrange();
  }

  function clearFilter() {
    for (const name of ["flag", "stars", "who"]) $(`input[name=${name}]`).checked = true;
    setFilter();
  }

  function people() {
    if (SERVER === null) return;
    const found = new Map();
    for (const rows of Object.values(choices.others[concept] ?? {})) {
      for (const row of Object.values(rows)) {
        const one = found.get(row.person) ?? { name: nameOf(row), picks: 0 };
        if (row.flag === "pick") one.picks += 1;
        found.set(row.person, one);
      }
    }
    $("#people-button").hidden = false;
    $("#people-name").textContent = found.size ? plural(found.size + 1, "person", "people") : "People";
    $("#filter-who").hidden = !found.size;
    const own = order.filter((id) => stateOf(id).flag === "pick").length;
    $("#people-list").replaceChildren(...[{ name: me.name || "You", picks: own }, ...found.values()].map((one) => (
      element("li", {}, element("bdi", {}, one.name), element("span", {}, plural(one.picks, "pick"))))));
  }

  for (const [id, card] of cards) { near.observe(card); if (stateOf(id).at) paint(card); }
  for (const stop of $$(".card .frame, .card .stack")) stop.tabIndex = -1;
  if (order.length) makeCurrent(order[0], false);

  Gallery.wall = {
    cards, marked, controls, stateOf, shown, inOrder, isShown, picks, paintControls, choose, makeCurrent, mark, toggleStack, showsAll,
    setView, setAll, setSize, setFilter, clearFilter, people, stacks,
    get current() { return current; },
    get view() { return view; },
  };
})();
