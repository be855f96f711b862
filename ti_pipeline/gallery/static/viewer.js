/* Looking closer: the viewer with the recipe, and pictures side by side. */
"use strict";

(() => {
  const { DATA, $, $$, choices, closedLayer, element, openLayer, say, showDialog, wall } = Gallery;
  const { cards, controls, marked, paintControls, stateOf } = wall;
  const { pictures } = DATA;
  let viewer = null; // {pswp, panel, ids, id} while pictures with recipes are open

  // ── the viewer ──

  function sources(id) {
    const picture = pictures[id];
    const scale = Math.max(1, 1600 / Math.max(picture.width, picture.height));
    const small = Math.max(picture.width, picture.height) <= 128; // enlarged once, and well, when the gallery was made
    return { src: small ? picture.shown : picture.opens, msrc: picture.shown, width: picture.width * scale, height: picture.height * scale, alt: picture.label, id };
  }

  function open(id) {
    const ids = wall.shown().includes(id) ? wall.shown() : wall.inOrder();
    wall.makeCurrent(id, false);
    openViewer(ids.map(sources), ids.indexOf(id));
  }

  function openReference(index) {
    openViewer(DATA.references.map((reference) => ({
      src: reference.opens, msrc: reference.shown, width: reference.width, height: reference.height, alt: reference.label,
    })), index);
  }

  function openViewer(dataSource, index) {
    const narrow = matchMedia("(max-width: 63.99rem)");
    const recipes = dataSource.some((item) => item.id);
    const opener = document.activeElement;
    const pswp = new PhotoSwipe({
      dataSource, index, bgOpacity: 1, loop: false, wheelToZoom: true, showHideAnimationType: "none", preload: [1, 2], maxZoomLevel: 6,
      returnFocus: false, trapFocus: true, arrowKeys: true, closeTitle: "Close (Esc)", zoomTitle: "Zoom (Z)",
      arrowPrevTitle: "Previous", arrowNextTitle: "Next",
      paddingFn: (size) => (!recipes ? { top: 48, bottom: 16, left: 16, right: 16 } : narrow.matches
        ? { top: 48, bottom: size.y * 0.44 + 8, left: 8, right: 8 } : { top: 56, bottom: 24, left: 24, right: 22 * 16 + 24 }),
    });
    if (recipes) pswp.on("uiRegister", () => pswp.ui.registerElement({
      name: "panel", className: "viewer-panel", appendTo: "root", tagName: "section", order: 9,
      onInit: (panel) => {
        panel.setAttribute("aria-label", "Recipe and choices");
        panel.tabIndex = 0;
        pswp.on("change", () => {
          viewer = { pswp, panel, ids: dataSource.map((item) => item.id), id: pswp.currSlide.data.id };
          recipe(panel, viewer.id);
        });
      },
    }));
    const close = () => pswp.close();
    pswp.on("destroy", () => {
      const id = viewer?.id;
      viewer = null;
      closedLayer(close);
      if (id && wall.isShown(id)) wall.makeCurrent(id);
      else opener?.focus({ preventScroll: true });
    });
    pswp.init();
    openLayer(close);
    pswp.element.setAttribute("aria-label", recipes ? "Pictures" : "References");
  }

  const fact = (name, value, across) => element("div", { class: across }, element("dt", {}, name), element("dd", {}, element("bdi", {}, value)));

  function recipe(panel, id) {
    const picture = pictures[id];
    const button = (text, name) => element("button", { type: "button", class: "tool", "data-do": name }, text);
    panel.replaceChildren(
      element("h2", {}, `${picture.place} of ${picture.of}`),
      element("p", { class: "why" }, picture.words),
      $(".measures", cards.get(id))?.cloneNode(true) ?? "",
      controls.cloneNode(true),
      element("p", { class: "strip", "aria-label": "References" }, ...DATA.references.slice(0, 5).map((reference) => element("img", { src: reference.shown, alt: `Reference: ${reference.label}` }))),
      element("dl", { class: "recipe" },
        fact("Prompt", picture.prompt, "across"),
        picture.negative ? fact("Negative prompt", picture.negative, "across") : null,
        fact("Seed", String(picture.seed)), fact("Sampler", picture.solver), fact("Steps", String(picture.steps)),
        ...Object.entries(picture.guidance).map(([name, scale]) => fact(name, scale))),
      element("div", { class: "actions" }, button("Copy prompt", "copy-prompt"), button("Copy seed", "copy-seed"), button("Copy recipe", "copy-recipe"), button("Download", "download")),
      element("details", { class: "details" }, element("summary", {}, "Details"), element("dl", { class: "recipe" },
        fact("Likeness to your photos (CLIP cosine)", picture.likeness.toFixed(3)), fact("Likeness to the brief (CLIP cosine)", picture.faithfulness.toFixed(3)),
        fact("Version of the word", DATA.version), picture.generator ? fact("Model", picture.generator) : null,
        fact("Why this place", picture.reason, "across"))));
    paintControls(panel, stateOf(id));
    panel.scrollTop = 0;
  }

  // ── side by side ──

  const dialog = $("#compare");
  const eye = { zoom: 1, x: 0, y: 0, reference: 0 };

  function look() {
    for (const image of $$(".pane img", dialog)) image.style.transform = `translate(${eye.x}%, ${eye.y}%) scale(${eye.zoom})`;
    $("#compare-zoom").value = eye.zoom;
  }

  function zoomTo(zoom) {
    eye.zoom = Math.max(1, Math.min(8, zoom));
    const limit = (eye.zoom - 1) * 50;
    eye.x = Math.max(-limit, Math.min(limit, eye.x));
    eye.y = Math.max(-limit, Math.min(limit, eye.y));
    look();
  }

  function side({ image, title, words, id }) {
    const figure = element("figure", { class: "side", "data-id": id },
      element("div", { class: "pane" }, element("img", { src: image, alt: title })),
      element("figcaption", {}, element("strong", {}, element("bdi", {}, title)), words ? element("p", { class: "why" }, element("bdi", {}, words)) : null));
    if (id) { $("figcaption", figure).append(controls.cloneNode(true)); paintControls(figure, stateOf(id)); }
    return figure;
  }

  function reference() {
    const one = DATA.references[eye.reference % DATA.references.length];
    return one ? side({ image: one.opens, title: "Reference", words: one.label }) : null;
  }

  function compare(sides) {
    Object.assign(eye, { zoom: 1, x: 0, y: 0 });
    $(".sides", dialog).replaceChildren(...[reference(), ...sides].filter(Boolean));
    look();
    showDialog(dialog);
  }

  const pictureSide = (id) => side({
    id, image: sources(id).src, title: `${pictures[id].place} of ${pictures[id].of}`, words: `${pictures[id].words} · ${pictures[id].prompt}`,
  });

  function compareMarked() {
    if (marked.length === 1) { say("Mark one more, with C or the button in the corner of a picture."); return; }
    if (marked.length) compare(marked.map(pictureSide));
  }

  function comparePair(number, id) {
    const versus = DATA.versus[number];
    const now = pictureSide(id);
    $("strong", now).textContent = `now · ${DATA.version}`;
    compare([side({ image: versus.pairs[id], title: `${versus.name} · ${versus.version}`, words: pictures[id].prompt }), now]);
  }

  dialog.addEventListener("wheel", (event) => {
    if (!event.target.closest(".pane")) return;
    event.preventDefault();
    zoomTo(eye.zoom * Math.exp(-event.deltaY / 400));
  }, { passive: false });
  const fingers = new Map();
  dialog.addEventListener("pointerdown", (event) => {
    const pane = event.target.closest(".pane");
    if (pane) { pane.setPointerCapture(event.pointerId); fingers.set(event.pointerId, event); }
  });
  dialog.addEventListener("pointermove", (event) => {
    const last = fingers.get(event.pointerId);
    if (!last) return;
    if (fingers.size === 2) {
      const other = [...fingers.values()].find((finger) => finger.pointerId !== event.pointerId);
      const apart = (finger) => Math.hypot(finger.clientX - other.clientX, finger.clientY - other.clientY);
      eye.zoom *= apart(event) / Math.max(1, apart(last));
    } else {
      const box = event.target.getBoundingClientRect();
      eye.x += (event.clientX - last.clientX) / box.width * 100;
      eye.y += (event.clientY - last.clientY) / box.height * 100;
    }
    fingers.set(event.pointerId, event);
    zoomTo(eye.zoom);
  });
  for (const name of ["pointerup", "pointercancel"]) dialog.addEventListener(name, (event) => fingers.delete(event.pointerId));
  dialog.addEventListener("dblclick", (event) => { if (event.target.closest(".pane")) zoomTo(eye.zoom > 1 ? 1 : 3); });
  $("#compare-zoom").addEventListener("input", (event) => zoomTo(Number(event.target.value)));

  choices.listeners.push(() => {
    if (viewer) paintControls(viewer.panel, stateOf(viewer.id));
    for (const side of $$(".side[data-id]")) paintControls(side, stateOf(side.dataset.id));
  });

  Object.assign(wall, {
    open, openReference, compareMarked, comparePair, dialog,
    otherReference() { eye.reference += 1; $(".side", dialog).replaceWith(reference()); look(); },
  });
  Object.defineProperty(wall, "viewer", { get: () => viewer });
})();
