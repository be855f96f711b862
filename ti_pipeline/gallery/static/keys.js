/* Clicks and keys on a concept's page. Keys act on a picture only where everyone sees which one it is. */
"use strict";

(() => {
  const { DATA, $, $$, choices, copy, covered, me, saveFile, say, showHelp, singleKeys, typing, wall } = Gallery;
  const { pictures } = DATA;
  const { cards, choose, dialog, makeCurrent, stateOf } = wall;
  const nextTo = "input, .references, .recipe"; // these have arrow keys of their own

  const toggleFlag = (id, flag) => choose(id, { flag: stateOf(id).flag === flag ? "" : flag });
  const toggleStars = (id, stars) => choose(id, { stars: stateOf(id).stars === stars ? 0 : stars });

  document.addEventListener("click", (event) => {
    const target = event.target.closest("button, a");
    const card = event.target.closest(".card");
    if (!target) {
      if (card && !getSelection().toString()) makeCurrent(card.dataset.id);
      return;
    }
    const { viewer } = wall;
    const id = viewer && viewer.panel.contains(target) ? viewer.id : target.closest("[data-id]")?.dataset.id;
    const modified = event.ctrlKey || event.metaKey || event.shiftKey;
    if (target.matches(".card .frame") || target.dataset.reference) {
      if (modified) return;
      event.preventDefault();
      if (target.dataset.reference) wall.openReference(Number(target.dataset.reference));
      else wall.open(id);
    } else if (target.dataset.show) wall.setAll(target.dataset.show === "all");
    else if (target.dataset.view) wall.setView(target.dataset.view);
    else if (target.dataset.copy) copy(target.dataset.copy, "Line");
    else if (target.dataset.do) {
      if (card && !card.contains(document.activeElement)) makeCurrent(id); // not every browser gives a clicked button the focus
      act(target.dataset.do, id, target, event);
    }
  });

  function act(wanted, id, target, event) {
    const acts = {
      pick: () => toggleFlag(id, "pick"), reject: () => toggleFlag(id, "reject"), stars: () => toggleStars(id, Number(target.dataset.stars)),
      compare: () => wall.mark(id), pair: () => wall.comparePair(Number(target.closest("[data-versus]").dataset.versus), id),
      stack: () => wall.toggleStack(id), "other-reference": wall.otherReference, "copy-prompt": () => copy(pictures[id].prompt, "Prompt"),
      "copy-seed": () => copy(String(pictures[id].seed), "Seed"), "copy-recipe": () => copy(pictures[id].parameters, "Recipe"),
      download: () => wall.takeOne(id), zip: wall.takeZip, "sheet-png": wall.takeSheetPng, "sheet-pdf": wall.takeSheetPdf,
      word: () => { event.preventDefault(); wall.takeWord(); },
      file: () => { event.preventDefault(); wall.takeFile(target.getAttribute("href"), target.download); },
      export: () => saveFile([DATA.concept], DATA.concept),
      import: () => $("#import-file").click(), "clear-filter": wall.clearFilter,
    };
    acts[wanted]?.();
  }

  $("#undo").addEventListener("click", () => choices.undo());
  $("#compare-button").addEventListener("click", wall.compareMarked);
  $("#size").addEventListener("input", (event) => wall.setSize(Number(event.target.value)));
  $("#filter-menu").addEventListener("change", wall.setFilter);
  $("#my-name").value = me.name;
  $("#my-name").addEventListener("change", (event) => { choices.rename(event.target.value.trim().slice(0, 40)); wall.people(); });
  document.addEventListener("focusin", (event) => {
    const card = event.target.closest?.(".card");
    if (card && card.dataset.id !== wall.current) makeCurrent(card.dataset.id, false);
  });

  // ── going about ──

  const focused = () => document.activeElement?.closest(".card")?.dataset.id;
  function inSight(id) {
    const card = cards.get(id);
    const box = $(".frame", card).getBoundingClientRect();
    const middle = (box.top + box.bottom) / 2;
    return card.checkVisibility() && box.height > 0 && middle > 0 && middle < innerHeight;
  }

  /** The picture that a key is for: the one in the viewer, the side or the card that has the focus, and none under a menu. */
  function subject() {
    if ($(":popover-open")) return null;
    if (wall.viewer) return wall.viewer.id;
    if (dialog.open) return document.activeElement?.closest(".side[data-id]")?.dataset.id;
    return $("dialog[open], .pswp") ? null : focused();
  }

  function step(key) {
    const ids = wall.shown();
    const at = ids.indexOf(focused());
    if (at < 0) {
      const start = [wall.current, ...ids].find((id) => ids.includes(id) && inSight(id)) ?? ids[0];
      if (start) makeCurrent(start);
      return;
    }
    if (key === "ArrowLeft" || key === "ArrowRight") {
      makeCurrent(ids[Math.max(0, Math.min(ids.length - 1, at + (key === "ArrowRight" ? 1 : -1)))]);
      return;
    }
    const box = cards.get(ids[at]).getBoundingClientRect();
    const down = key === "ArrowDown";
    let best = null;
    for (let i = at + (down ? 1 : -1); i >= 0 && i < ids.length; i += down ? 1 : -1) {
      const other = cards.get(ids[i]).getBoundingClientRect();
      if (Math.abs(other.top - box.top) < 4) continue;
      if (best && Math.abs(other.top - best.top) > 4) break;
      const off = Math.abs(other.left - box.left);
      if (!best || off < best.off) best = { id: ids[i], off, top: other.top };
    }
    if (best) makeCurrent(best.id);
  }

  /** Pick or reject, and go on to the next picture that nothing has been said of. */
  function decide(id, flag) {
    const { viewer } = wall;
    const ids = viewer ? viewer.ids : wall.shown();
    const at = ids.indexOf(id);
    choose(id, { flag });
    if (dialog.open) return;
    const left = [...ids.slice(at + 1), ...ids.slice(0, at)].find((one) => !stateOf(one).flag && (viewer || wall.isShown(one)));
    const done = `No. ${pictures[id].place} ${flag === "pick" ? "picked" : "rejected"}`;
    say(left ? done : `${done}. Everything shown is decided.`);
    if (!left) return;
    if (viewer) viewer.pswp.goTo(ids.indexOf(left));
    else makeCurrent(left);
  }

  document.addEventListener("keydown", (event) => {
    if (typing(event) || event.altKey || $("#help").open || $("#import-dialog").open) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const control = event.ctrlKey || event.metaKey;
    if (control && key === "z") {
      event.preventDefault();
      const id = event.shiftKey ? choices.redo() : choices.undo();
      if (id && cards.has(id) && wall.isShown(id) && !covered()) makeCurrent(id);
      return;
    }
    if (control) return;
    if (key.startsWith("Arrow") && !covered() && wall.view !== "versus" && !event.target.closest?.(nextTo)) {
      event.preventDefault();
      step(key);
      return;
    }
    if (!singleKeys()) return;
    const onPicture = {
      p: (id) => decide(id, "pick"), x: (id) => decide(id, "reject"), u: (id) => choose(id, { flag: "" }), c: wall.mark, o: wall.toggleStack,
      ...Object.fromEntries([0, 1, 2, 3, 4, 5].map((stars) => [stars, (id) => choose(id, { stars })])),
    };
    const onPage = {
      a: () => wall.setAll(!wall.showsAll()), s: () => wall.setView(wall.view === "stream" ? "rows" : "stream"),
      d: () => wall.setView(wall.view === "versus" ? "rows" : "versus"), f: () => $("#filter-menu").togglePopover(), g: wall.compareMarked,
      "+": () => wall.setSize(Number($("#size").value) + 24), "-": () => wall.setSize(Number($("#size").value) - 24), "?": showHelp,
    };
    if (onPicture[key]) {
      event.preventDefault();
      if (!event.repeat) onSubject(onPicture[key]); // a key that is held down decides once
    } else if (onPage[key] && (!covered() || (key === "f" && $("#filter-menu").matches(":popover-open")))) {
      event.preventDefault();
      onPage[key]();
    }
  });

  function onSubject(wanted) {
    const id = subject();
    if (id && !wall.viewer && !dialog.open && !inSight(id)) {
      makeCurrent(id);
      say("Keys act on this picture. Press again.");
    } else if (id) wanted(id);
    else if (!covered()) say("Go to a picture first, with the arrow keys or a click.");
  }

  // ── the beginning ──

  const { settings } = Gallery;
  wall.setSize(settings.get("size", matchMedia("(max-width: 40rem)").matches ? 150 : 224));
  wall.setView(settings.get("view", "rows") === "stream" ? "stream" : "rows");
  wall.people();
  addEventListener("pageshow", wall.setFilter); // the browser's Back brings what was set, and brings it late
  addEventListener("storage", () => { $("#my-name").value = me.name; });
  choices.start();
})();
