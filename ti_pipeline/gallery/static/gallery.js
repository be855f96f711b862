/* The script of a gallery: a classic one, because a page from a folder may not load modules. No text from outside ever
   becomes markup: it goes through textContent and attributes only. */
"use strict";

(() => {
  const root = document.documentElement;
  const block = document.getElementById("data");
  if (!block) return;
  const DATA = JSON.parse(block.textContent);
  const SERVER = root.hasAttribute("data-server") ? root.dataset.root : null; // set by `gallery serve`
  const SITE = `${root.dataset.root}_site/`;
  const NOTHING = Object.freeze({ flag: "", stars: 0 });
  const STORE = "ti-gallery";
  const $ = (selector, within = document) => within.querySelector(selector);
  const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
  const plural = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === true) made.setAttribute(name, "");
      else if (value !== false && value != null) made.setAttribute(name, value);
    }
    made.append(...children.filter((child) => child != null));
    return made;
  }

  let toastTimer;
  function say(text) {
    const toast = $(".toast");
    toast.textContent = text;
    toast.hidden = false;
    clearTimeout(toastTimer);
    toastTimer = setTimeout(() => { toast.hidden = true; }, 3500);
  }

  // ── what the browser remembers ──

  function recall(key, otherwise) {
    try { return JSON.parse(localStorage.getItem(`${STORE}/${key}`)) ?? otherwise; } catch { return otherwise; }
  }
  function remember(key, value) {
    try { localStorage.setItem(`${STORE}/${key}`, JSON.stringify(value)); return true; } catch { return false; }
  }
  const ticket = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const me = recall("me", null) ?? { person: ticket(), name: "" };
  remember("me", me);

  // ── choices: mine in the browser, and on a server everyone's ──

  const choices = {
    mine: recall("choices", {}), // {concept: {picture: {flag, stars, at, ticket}}}
    others: {}, // {concept: {picture: {person: {name, flag, stars}}}}
    waiting: new Map(recall("waiting", []).map((row) => [row.ticket, row])), // sent, or to be sent, and not yet answered as kept
    revision: 0,
    past: [],
    future: [],
    seen: new Set(),
    listeners: [],

    of(concept, picture) { return this.mine[concept]?.[picture] ?? NOTHING; },

    everyone(concept, picture) {
      const own = this.of(concept, picture);
      const rows = Object.values(this.others[concept]?.[picture] ?? {});
      return own.flag || own.stars ? [own, ...rows] : rows;
    },

    /** Change some of my choices at once; rows of {concept, picture, flag, stars}. */
    change(rows, undoable = true) {
      const before = rows.map(({ concept, picture }) => ({ concept, picture, ...this.of(concept, picture) }));
      if (undoable) { this.past.push({ before, after: rows }); this.future = []; }
      for (const { concept, picture, flag, stars } of rows) {
        const row = { concept, picture, flag, stars, at: new Date().toISOString(), ticket: ticket() };
        (this.mine[concept] ??= {})[picture] = row;
        if (SERVER !== null) this.waiting.set(row.ticket, { ...row, person: me.person, name: me.name });
      }
      if (!this.persist()) say("This browser keeps nothing: save your choices as a file before you leave.");
      this.tell(rows);
      if (SERVER !== null) this.send();
    },

    persist() {
      const latest = recall("choices", {}); // another tab may have chosen since
      for (const [concept, pictures] of Object.entries(latest)) {
        for (const [picture, row] of Object.entries(pictures)) {
          const own = this.mine[concept]?.[picture];
          if (!own || (row.at ?? "") > (own.at ?? "")) (this.mine[concept] ??= {})[picture] = row;
        }
      }
      return remember("choices", this.mine) && remember("waiting", [...this.waiting.values()]);
    },

    undo() {
      const step = this.past.pop();
      if (!step) return;
      this.future.push(step);
      this.change(step.before.map(({ concept, picture, flag, stars }) => ({ concept, picture, flag, stars })), false);
      say("Undone");
      return step.before[0].picture;
    },

    redo() {
      const step = this.future.pop();
      if (!step) return;
      this.past.push(step);
      this.change(step.after, false);
      return step.after[0].picture;
    },

    tell(rows) { for (const listener of this.listeners) listener(rows); },

    isWaiting(concept, picture) {
      for (const row of this.waiting.values()) if (row.concept === concept && row.picture === picture) return true;
      return false;
    },

    /** Hand over what waits, until the server has said that it is kept. Sent twice, it is kept once. */
    async send() {
      if (this.sending || this.waiting.size === 0) return;
      this.sending = true;
      const rows = [...this.waiting.values()].slice(0, 200);
      try {
        const answer = await fetch(`${SERVER}api/choices`, {
          method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ choices: rows }),
        });
        if (!answer.ok) throw new Error(String(answer.status));
        for (const row of rows) this.waiting.delete(row.ticket);
        this.failed = false;
        remember("waiting", [...this.waiting.values()]);
        this.tell(rows);
      } catch {
        this.failed = true;
        this.tell(rows);
      }
      this.sending = false;
      if (this.waiting.size) setTimeout(() => this.send(), this.failed ? 1500 : 0);
    },

    /** What others, and I elsewhere, have chosen since the last time. */
    async listen() {
      try {
        const answer = await fetch(`${SERVER}api/choices?since=${this.revision}`, { headers: { "Gallery-Person": me.person } });
        if (answer.ok) {
          const news = await answer.json();
          this.take(news);
          if (news.choices.length) { this.listen(); return; } // there may be more than one answer's worth
          if (!this.caughtUp) this.handOver();
        }
      } catch { /* the next round tries again; what waits is shown as not yet kept */ }
      setTimeout(() => this.listen(), document.hidden ? 10000 : 1500);
    },

    take({ revision, choices: news }) {
      for (const row of news) {
        if (row.person === me.person) {
          this.seen.add(row.ticket);
          if (!this.isWaiting(row.concept, row.picture)) (this.mine[row.concept] ??= {})[row.picture] = row;
          continue;
        }
        const people = ((this.others[row.concept] ??= {})[row.picture] ??= {});
        if (row.flag || row.stars) people[row.person] = row;
        else delete people[row.person];
      }
      this.revision = revision;
      if (news.length) { this.persist(); this.tell(news); }
    },

    /** What I chose and this server has never seen, such as after it was given another database. */
    handOver() {
      this.caughtUp = true;
      for (const [concept, pictures] of Object.entries(this.mine)) {
        for (const [picture, row] of Object.entries(pictures)) {
          if (!this.seen.has(row.ticket) && (row.flag || row.stars)) {
            this.waiting.set(row.ticket, { concept, picture, flag: row.flag, stars: row.stars, at: row.at, ticket: row.ticket, ...me });
          }
        }
      }
      this.send();
    },

    exported(concepts) {
      const rows = [];
      for (const concept of concepts) {
        for (const [picture, row] of Object.entries(this.mine[concept] ?? {})) {
          if (row.flag || row.stars) rows.push({ concept, picture, flag: row.flag, stars: row.stars, at: row.at, ticket: row.ticket, ...me });
        }
      }
      return { format: "ti-pipeline choices", choices: rows };
    },

    /** Take a file's choices over as mine. Returns how many; throws a sentence for people. */
    bringIn(text) {
      let file;
      try { file = JSON.parse(text); } catch { throw new Error("This file is no JSON."); }
      if (file?.format !== "ti-pipeline choices" || !Array.isArray(file.choices)) throw new Error("This file has no choices of a gallery in it.");
      const rows = file.choices.filter((row) => (
        /^[a-z0-9][a-z0-9_-]{0,63}$/.test(row?.concept) && /^[0-9a-f]{16}$/.test(row.picture)
        && ["pick", "reject", ""].includes(row.flag) && Number.isInteger(row.stars) && row.stars >= 0 && row.stars <= 5));
      if (rows.length) this.change(rows.map(({ concept, picture, flag, stars }) => ({ concept, picture, flag, stars })));
      return rows.length;
    },
  };

  // ── files: bytes come from scripts beside the page, so that they come from a folder too ──

  const arriving = new Map();
  window.receiveBytes = (name, encoded) => {
    const bytes = Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0));
    arriving.get(name)?.(bytes);
  };

  function addScript(source) {
    return new Promise((resolve, reject) => {
      const script = element("script", { src: source });
      script.onload = () => { script.remove(); resolve(); };
      script.onerror = () => { script.remove(); reject(new Error(`${source} cannot be read.`)); };
      document.head.append(script);
    });
  }

  async function loadBytes(name, source) {
    let bytes;
    arriving.set(name, (received) => { bytes = received; });
    try { await addScript(source); } finally { arriving.delete(name); }
    return bytes;
  }

  const libraries = new Map();
  function library(file) {
    if (!libraries.has(file)) libraries.set(file, addScript(`${SITE}vendor/${file}`));
    return libraries.get(file);
  }

  function download(name, content, type) {
    const url = URL.createObjectURL(new Blob([content], { type }));
    const link = element("a", { href: url, download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  }

  async function copy(text, what) {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // no permission, or a page from the net without TLS
      const area = element("textarea", { class: "sr", "aria-hidden": "true" });
      area.value = text;
      (document.querySelector("dialog[open]") ?? document.body).append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      if (!done) { say("The browser does not let this page copy."); return; }
    }
    say(`${what} copied`);
  }

  async function bringInFile(input) {
    const file = input.files[0];
    input.value = "";
    if (!file) return;
    try {
      say(`${plural(choices.bringIn(await file.text()), "choice")} brought in`);
    } catch (error) { say(error.message); }
  }

  function saveChoices(concepts, name) {
    const file = choices.exported(concepts);
    if (!file.choices.length) { say("Nothing is chosen yet."); return; }
    download(`choices-${name}.json`, JSON.stringify(file, null, 1), "application/json");
    say(`${plural(file.choices.length, "choice")} saved`);
  }

  // ── what every page has: menus, help, keys ──

  function placeMenus() {
    for (const menu of $$("[popover]")) {
      const button = $(`[popovertarget="${menu.id}"]`);
      button?.setAttribute("aria-haspopup", "dialog");
      menu.addEventListener("beforetoggle", (event) => {
        if (event.newState !== "open" || !button) return;
        const box = button.getBoundingClientRect();
        menu.style.top = `${box.bottom + 6}px`;
        menu.style.left = `${Math.max(8, Math.min(box.left, innerWidth - 328))}px`;
      });
    }
  }

  const singleKeys = () => recall("single-keys", true);
  function setUpHelp() {
    const help = $("#help");
    if (!help) return;
    $("#help-button")?.addEventListener("click", () => help.showModal());
    const box = $("#single-keys");
    box.checked = singleKeys();
    box.addEventListener("change", () => remember("single-keys", box.checked));
    help.addEventListener("click", (event) => { if (event.target === help) help.close(); });
  }

  function typing(event) {
    return event.target.closest?.("input:not([type=range]):not([type=radio]):not([type=checkbox]), textarea, select");
  }

  // ═══ a concept's page ═══

  function conceptPage() {
    const concept = DATA.concept;
    const pictures = DATA.pictures;
    const cards = new Map($$(".card").map((card) => [card.dataset.id, card]));
    const order = [...cards.keys()];
    const filter = { flag: "", stars: 0, who: "anyone" };
    const marked = [];
    let current = null;
    let viewer = null;
    let view = "rows";

    const stateOf = (id) => choices.of(concept, id);
    const said = (id) => (filter.who === "me" ? [stateOf(id)] : choices.everyone(concept, id));
    const filtering = () => Boolean(filter.flag || filter.stars);
    const passes = (id) => {
      if (!filtering()) return true;
      const rows = said(id);
      const flags = rows.map((row) => row.flag).filter(Boolean);
      if (filter.flag === "none" ? flags.length : filter.flag && !flags.includes(filter.flag)) return false;
      return !filter.stars || rows.some((row) => row.stars >= filter.stars);
    };
    const showsAll = () => root.classList.contains("all");
    const isShown = (id) => passes(id) && (filtering() || showsAll() || pictures[id].best);
    const inOrder = () => (view === "stream" ? streamOrder : order);
    const shown = () => inOrder().filter(isShown);
    const picks = () => order.filter((id) => choices.everyone(concept, id).some((row) => row.flag === "pick"));
    const streamOrder = [...order].sort((a, b) => pictures[a].place - pictures[b].place || pictures[a].brief - pictures[b].brief);

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
      const everyone = choices.everyone(concept, id);
      const flags = everyone.map((row) => row.flag);
      card.classList.toggle("picked", flags.includes("pick"));
      card.classList.toggle("rejected", flags.includes("reject") && !flags.includes("pick"));
      card.classList.toggle("pending", choices.isWaiting(concept, id));
      paintControls(card, stateOf(id));
      $(".tick", card)?.setAttribute("aria-pressed", marked.includes(id));
      const others = Object.values(choices.others[concept]?.[id] ?? {});
      let list = $(".others", card);
      if (!others.length) { list?.remove(); return; }
      if (!list) $(".told", card).append(list = element("p", { class: "others" }));
      list.replaceChildren(...others.map((row) => element("bdi", { class: row.flag }, `${row.name || "Someone"} ${describe(row)}`)));
    }

    function describe(row) {
      return [row.flag === "pick" ? "picked" : row.flag === "reject" ? "rejected" : "", row.stars ? "★".repeat(row.stars) : ""].filter(Boolean).join(" ");
    }

    function arrange() {
      root.classList.toggle("filtered", filtering());
      for (const [id, card] of cards) card.hidden = !passes(id);
      for (const section of $$(".brief[data-brief]")) {
        const own = order.filter((id) => String(pictures[id].brief) === section.dataset.brief);
        const visible = own.filter(isShown).length;
        section.hidden = view !== "rows" || (filtering() && !visible);
        $(".of", section).textContent = filtering() ? `${visible} of ${own.length}` : showsAll() ? `all ${own.length}` : `${visible} best of ${own.length}`;
      }
      const total = shown().length;
      $("#stream .count").textContent = `${total} of ${order.length}`;
      $("#nothing").hidden = total > 0 || !filtering() || view === "versus";
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
      if (SERVER === null) return;
      const kept = $("#kept");
      kept.hidden = false;
      kept.classList.toggle("waiting", choices.failed === true && choices.waiting.size > 0);
      kept.textContent = !choices.waiting.size ? "All kept" : choices.failed ? `${choices.waiting.size} not yet kept, trying again` : "Keeping …";
    }

    choices.listeners.push((rows) => {
      for (const { concept: whose, picture } of rows) if (whose === concept && cards.has(picture)) paint(cards.get(picture));
      if (filtering()) arrange(); else count();
      if (viewer) paintControls(viewer.panel, stateOf(viewer.id));
      for (const side of $$(".side[data-id]")) paintControls(side, stateOf(side.dataset.id));
      people();
    });

    function choose(id, { flag, stars }) {
      const before = stateOf(id);
      const row = { concept, picture: id, flag: flag ?? before.flag, stars: stars ?? before.stars };
      if (row.flag !== before.flag || row.stars !== before.stars) choices.change([row]);
    }
    const toggleFlag = (id, flag) => choose(id, { flag: stateOf(id).flag === flag ? "" : flag });
    const toggleStars = (id, stars) => choose(id, { stars: stateOf(id).stars === stars ? 0 : stars });

    // ── going about with the keyboard: one card is the current one and the only stop of the Tab key ──

    function makeCurrent(id, focus = true) {
      const card = cards.get(id);
      if (!card) return;
      const last = cards.get(current);
      if (last) {
        last.classList.remove("current");
        for (const stop of $$("a, button", last)) stop.tabIndex = -1;
      }
      current = id;
      equip(card);
      for (const stop of $$("a, button", card)) stop.tabIndex = 0;
      if (!focus) return;
      card.classList.add("current");
      $(".frame", card).focus({ preventScroll: true });
      card.scrollIntoView({ block: "nearest" });
    }

    function step(key) {
      const ids = shown();
      if (!ids.length) return;
      const at = ids.indexOf(current);
      if (at < 0 || !cards.get(current).classList.contains("current")) { makeCurrent(at < 0 ? ids[0] : current); return; }
      if (key === "ArrowLeft" || key === "ArrowRight") {
        makeCurrent(ids[Math.max(0, Math.min(ids.length - 1, at + (key === "ArrowRight" ? 1 : -1)))]);
        return;
      }
      const box = cards.get(current).getBoundingClientRect();
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

    // ── the viewer ──

    function sources(id) {
      const picture = pictures[id];
      const scale = Math.max(1, 1600 / Math.max(picture.width, picture.height));
      const small = Math.max(picture.width, picture.height) <= 128; // enlarged once, and well, when the gallery was made
      return { src: small ? picture.shown : picture.opens, msrc: picture.shown, width: picture.width * scale, height: picture.height * scale, alt: picture.label, id };
    }

    function open(id) {
      const ids = shown().includes(id) ? shown() : inOrder();
      view === "rows" || makeCurrent(id, false);
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
          const fill = () => { viewer = { pswp, panel, id: pswp.currSlide.data.id }; recipe(panel, viewer.id); };
          pswp.on("change", fill);
        },
      }));
      pswp.on("destroy", () => {
        const id = viewer?.id;
        viewer = null;
        if (id && cards.has(id)) makeCurrent(id);
      });
      pswp.init();
      pswp.element.setAttribute("aria-label", recipes ? "Pictures" : "References");
    }

    function fact(name, value, across) { return element("div", { class: across }, element("dt", {}, name), element("dd", {}, element("bdi", {}, value))); }

    function recipe(panel, id) {
      const picture = pictures[id];
      const card = cards.get(id);
      const button = (text, name) => element("button", { type: "button", class: "tool", "data-do": name }, text);
      panel.replaceChildren(
        element("h2", {}, `${picture.place} of ${picture.of}`),
        element("p", { class: "why" }, picture.words),
        $(".measures", card).cloneNode(true),
        controls.cloneNode(true),
        element("p", { class: "strip", "aria-label": "References" }, ...DATA.references.slice(0, 5).map((reference) => element("img", { src: reference.shown, alt: `Reference: ${reference.label}` }))),
        element("dl", { class: "recipe" },
          fact("Prompt", picture.prompt, "across"),
          picture.negative ? fact("Without", picture.negative, "across") : null,
          fact("Seed", String(picture.seed)), fact("Solver", picture.solver), fact("Steps", String(picture.steps)),
          fact("Guidance", String(picture.guidance)), fact("Version of the word", DATA.version),
          picture.generator ? fact("Generator", picture.generator) : null,
          fact("Why here", picture.reason, "across")),
        element("div", { class: "actions" }, button("Copy prompt", "copy-prompt"), button("Copy seed", "copy-seed"), button("Copy recipe", "copy-recipe"), button("Download", "download")));
      paintControls(panel, stateOf(id));
      panel.scrollTop = 0;
    }

    // ── side by side ──

    const dialog = $("#compare");
    const eye = { zoom: 1, x: 0, y: 0, reference: 0 };

    function mark(id) {
      const at = marked.indexOf(id);
      if (at >= 0) marked.splice(at, 1);
      else if (marked.length === 4) { say("Four at most: take one out first."); return; }
      else marked.push(id);
      paint(cards.get(id));
      count();
    }

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
      dialog.showModal();
    }

    const pictureSide = (id) => side({
      id, image: sources(id).src, title: `${pictures[id].place} of ${pictures[id].of}`, words: `${pictures[id].words} · ${pictures[id].prompt}`,
    });

    function compareMarked() {
      if (marked.length === 1) { say("Mark one more: C, or the sign in the corner of a picture."); return; }
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

    // ── taking away ──

    function scope() {
      const wanted = $("input[name=scope]:checked").value === "picks" ? picks() : shown();
      if (!wanted.length) say("Nothing is picked yet. Pick with P, or choose all that are shown.");
      return wanted;
    }

    const bytesOf = (id) => loadBytes(id, pictures[id].carrier);

    async function busy(text, work) {
      say(text);
      try { await work(); } catch (error) { say(`That did not work: ${error.message}`); }
    }

    async function takeZip() {
      const ids = scope();
      if (!ids.length) return;
      await busy(`Packing ${plural(ids.length, "picture")} …`, async () => {
        await library("fflate.umd.js");
        const files = {};
        for (const id of ids) files[pictures[id].file] = [await bytesOf(id), { level: 0 }];
        const recipes = ids.map((id) => `${pictures[id].file}\n${pictures[id].parameters}\n`).join("\n");
        files["recipes.txt"] = fflate.strToU8(recipes);
        files[DATA.word] = [await loadBytes(concept, DATA.wordCarrier), { level: 0 }];
        download(`${concept}-${ids.length}.zip`, fflate.zipSync(files), "application/zip");
        say(`${plural(ids.length, "picture")} packed`);
      });
    }

    function lines(context, text, width, most) {
      const words = text.split(/\s+/).flatMap((word) => (word.length > 40 ? word.match(/.{1,40}/gu) : [word]));
      const rows = [];
      let row = "";
      for (const word of words) {
        const longer = row ? `${row} ${word}` : word;
        if (context.measureText(longer).width <= width) { row = longer; continue; }
        if (row) rows.push(row);
        row = word;
        if (rows.length === most) break;
      }
      if (rows.length < most && row) rows.push(row);
      else if (rows.length === most) rows[most - 1] = `${rows[most - 1].replace(/.$/u, "")}…`;
      return rows;
    }

    /** One sheet `width` × `height` of pictures with their captions below them, as a canvas. */
    async function sheet(ids, { columns, width, height, page, pages }) {
      const canvas = element("canvas", { width, height });
      const context = canvas.getContext("2d");
      const edge = width * 0.03;
      const gap = width * 0.012;
      const cell = (width - 2 * edge - gap * (columns - 1)) / columns;
      const small = Math.max(15, Math.round(cell * 0.05));
      const font = getComputedStyle(document.body).fontFamily;
      const caption = small * 4.6;
      context.fillStyle = "#fff";
      context.fillRect(0, 0, width, height);
      context.textBaseline = "top";
      context.fillStyle = "#1a1a19";
      context.font = `600 ${Math.round(small * 1.7)}px ${font}`;
      context.fillText(lines(context, DATA.token, width * 0.6, 1)[0] ?? "", edge, edge);
      context.font = `${small}px ${font}`;
      context.textAlign = "right";
      context.fillText(`version ${DATA.version}${pages > 1 ? ` · ${page} of ${pages}` : ""}`, width - edge, edge + small * 0.5);
      context.textAlign = "left";
      for (const [index, id] of ids.entries()) {
        const picture = pictures[id];
        const bitmap = await createImageBitmap(new Blob([await bytesOf(id)], { type: "image/png" }));
        const x = edge + (index % columns) * (cell + gap);
        const y = edge * 1.4 + small * 2.6 + Math.floor(index / columns) * (cell + caption + gap);
        const scale = Math.min(cell / bitmap.width, cell / bitmap.height);
        context.imageSmoothingQuality = "high";
        context.drawImage(bitmap, x + (cell - bitmap.width * scale) / 2, y + (cell - bitmap.height * scale) / 2, bitmap.width * scale, bitmap.height * scale);
        bitmap.close();
        const state = stateOf(id);
        context.fillStyle = "#1a1a19";
        context.font = `600 ${small}px ${font}`;
        context.fillText(`${picture.place} of ${picture.of} · seed ${picture.seed} ${"★".repeat(state.stars)}`, x, y + cell + small * 0.4);
        context.fillStyle = "#5b5b56";
        context.font = `${Math.round(small * 0.9)}px ${font}`;
        lines(context, picture.prompt, cell, 2).forEach((row, k) => context.fillText(row, x, y + cell + small * (1.7 + 1.15 * k)));
      }
      return canvas;
    }
    const sheetHeight = (count, columns, width) => {
      const cell = (width * 0.94 - width * 0.012 * (columns - 1)) / columns;
      const small = Math.max(15, Math.round(cell * 0.05));
      return Math.ceil(width * 0.072 + small * 2.6 + Math.ceil(count / columns) * (cell + small * 4.6 + width * 0.012));
    };
    const encoded = (canvas, type) => new Promise((resolve, reject) => canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the sheet is too large"))), type, 0.92));

    async function takeSheetPng() {
      const ids = scope();
      if (!ids.length) return;
      await busy("Drawing the sheet …", async () => {
        const columns = Math.max(2, Math.min(12, Math.ceil(Math.sqrt(ids.length * 1.5))));
        const width = Math.min(4800, columns * 560);
        const canvas = await sheet(ids, { columns, width, height: sheetHeight(ids.length, columns, width), page: 1, pages: 1 });
        download(`${concept}-sheet.png`, await encoded(canvas, "image/png"), "image/png");
        say("Contact sheet drawn");
      });
    }

    async function takeSheetPdf() {
      const ids = scope();
      if (!ids.length) return;
      await busy("Drawing the sheet …", async () => {
        await library("jspdf.umd.min.js");
        const [columns, perPage, width, height] = [4, 8, 2339, 1654]; // A4 across at 200 dots an inch
        const pages = Math.ceil(ids.length / perPage);
        const pdf = new jspdf.jsPDF({ orientation: "landscape", unit: "mm", format: "a4", compress: true });
        pdf.setProperties({ title: `${concept}: contact sheet`, creator: "ti-pipeline" });
        for (let page = 0; page < pages; page += 1) {
          if (page) pdf.addPage();
          const canvas = await sheet(ids.slice(page * perPage, (page + 1) * perPage), { columns, width, height, page: page + 1, pages });
          const jpeg = new Uint8Array(await (await encoded(canvas, "image/jpeg")).arrayBuffer());
          pdf.addImage(jpeg, "JPEG", 0, 0, 297, 210);
        }
        download(`${concept}-sheet.pdf`, pdf.output("blob"), "application/pdf");
        say(`${plural(pages, "page")} drawn`);
      });
    }

    async function takeOne(id) {
      await busy("Fetching …", async () => {
        download(pictures[id].file, await bytesOf(id), "image/png");
        say("Downloaded");
      });
    }

    async function takeWord() {
      await busy("Fetching …", async () => {
        download(DATA.word, await loadBytes(concept, DATA.wordCarrier), "application/octet-stream");
        say(`${DATA.word} downloaded`);
      });
    }

    // ── view ──

    function setView(wanted) {
      if (wanted === "versus" && !DATA.versus.length) return;
      if ((view === "stream") !== (wanted === "stream")) {
        const stream = $("#stream .cards");
        for (const id of wanted === "stream" ? streamOrder : order) {
          const home = wanted === "stream" ? stream : $(`#brief-${pictures[id].brief} .cards`);
          home.append(cards.get(id));
        }
      }
      view = wanted;
      remember("view", view);
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
      remember("size", size);
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
          const one = found.get(row.person) ?? { name: row.name, picks: 0 };
          if (row.flag === "pick") one.picks += 1;
          found.set(row.person, one);
        }
      }
      $("#people-button").hidden = false;
      $("#people-name").textContent = found.size ? plural(found.size + 1, "person", "people") : "People";
      $("#filter-who").hidden = !found.size;
      const own = order.filter((id) => stateOf(id).flag === "pick").length;
      $("#people-list").replaceChildren(...[{ name: me.name || "You", picks: own }, ...found.values()].map((one) => (
        element("li", {}, element("bdi", {}, one.name || "Someone"), element("span", {}, plural(one.picks, "pick"))))));
    }

    // ── clicks and keys ──

    document.addEventListener("click", (event) => {
      const target = event.target.closest("button, a");
      if (!target) return;
      const id = viewer && viewer.panel.contains(target) ? viewer.id : target.closest("[data-id]")?.dataset.id;
      const wanted = target.dataset.do;
      if (target.matches(".card .frame")) {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        makeCurrent(id, false);
        open(id);
      } else if (target.dataset.reference) {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        openReference(Number(target.dataset.reference));
      } else if (target.dataset.show) setAll(target.dataset.show === "all");
      else if (target.dataset.view) setView(target.dataset.view);
      else if (target.dataset.copy) copy(target.dataset.copy, "Line");
      else if (wanted) act(wanted, id, target, event);
    });

    function act(wanted, id, target, event) {
      const acts = {
        pick: () => toggleFlag(id, "pick"), reject: () => toggleFlag(id, "reject"), stars: () => toggleStars(id, Number(target.dataset.stars)),
        compare: () => mark(id), pair: () => comparePair(Number(target.closest("[data-versus]").dataset.versus), id),
        "other-reference": () => { eye.reference += 1; $(".side", dialog).replaceWith(reference()); look(); },
        "copy-prompt": () => copy(pictures[id].prompt, "Prompt"), "copy-seed": () => copy(String(pictures[id].seed), "Seed"),
        "copy-recipe": () => copy(pictures[id].parameters, "Recipe"), download: () => takeOne(id),
        zip: takeZip, "sheet-png": takeSheetPng, "sheet-pdf": takeSheetPdf, word: () => { event.preventDefault(); takeWord(); },
        export: () => saveChoices([concept], concept), import: () => $("#import-file").click(), "clear-filter": clearFilter,
      };
      acts[wanted]?.();
    }

    $("#import-file").addEventListener("change", (event) => bringInFile(event.target));
    $("#undo").addEventListener("click", () => choices.undo());
    $("#compare-button").addEventListener("click", compareMarked);
    $("#size").addEventListener("input", (event) => setSize(Number(event.target.value)));
    $("#filter-menu").addEventListener("change", setFilter);
    $("#my-name").value = me.name;
    $("#my-name").addEventListener("change", (event) => { me.name = event.target.value.trim().slice(0, 40); remember("me", me); people(); });
    document.addEventListener("focusin", (event) => {
      const card = event.target.closest?.(".card");
      if (card && card.dataset.id !== current) makeCurrent(card.dataset.id, false);
      if (!card) cards.get(current)?.classList.remove("current");
    });

    document.addEventListener("keydown", (event) => {
      if (typing(event) || event.altKey || $("#help").open) return;
      const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
      const control = event.ctrlKey || event.metaKey;
      const subject = viewer ? viewer.id : event.target.closest?.(".side[data-id]")?.dataset.id ?? (dialog.open ? null : current);
      if (control && key === "z") {
        event.preventDefault();
        const id = event.shiftKey ? choices.redo() : choices.undo();
        if (id && cards.has(id) && isShown(id) && !viewer && !dialog.open) makeCurrent(id);
        return;
      }
      if (control) return;
      if (key.startsWith("Arrow") && !viewer && !dialog.open && view !== "versus" && !event.target.closest?.("input, [popover]")) {
        event.preventDefault();
        step(key);
        return;
      }
      if (!singleKeys() || (dialog.open && !subject)) return;
      const onPicture = {
        p: () => choose(subject, { flag: "pick" }), x: () => choose(subject, { flag: "reject" }), u: () => choose(subject, { flag: "" }),
        c: () => mark(subject), ...Object.fromEntries([0, 1, 2, 3, 4, 5].map((n) => [n, () => choose(subject, { stars: n })])),
      };
      const onPage = {
        a: () => setAll(!showsAll()), s: () => setView(view === "stream" ? "rows" : "stream"), d: () => setView(view === "versus" ? "rows" : "versus"),
        f: () => $("#filter-menu").togglePopover(), g: compareMarked, "+": () => setSize(Number($("#size").value) + 24),
        "-": () => setSize(Number($("#size").value) - 24), "?": () => $("#help").showModal(),
      };
      const wanted = (subject && onPicture[key]) || (!viewer && !dialog.open && onPage[key]);
      if (!wanted) return;
      event.preventDefault();
      wanted();
    });

    // ── the beginning ──

    for (const [id, card] of cards) { near.observe(card); if (stateOf(id) !== NOTHING) paint(card); }
    for (const stop of $$(".card .frame")) stop.tabIndex = -1;
    if (order.length) makeCurrent(order[0], false);
    setSize(recall("size", matchMedia("(max-width: 40rem)").matches ? 150 : 224));
    if (recall("view", "rows") === "stream") setView("stream"); else arrange();
    people();
  }

  // ═══ the overview ═══

  function overviewPage() {
    const list = $(".overview");
    if (!list) return;
    const items = $$(".overview > li");
    const picksOf = (concept) => {
      const here = new Set(DATA.concepts[concept]);
      const all = new Set(Object.entries(choices.mine[concept] ?? {}).filter(([, row]) => row.flag === "pick").map(([id]) => id));
      for (const [id, rows] of Object.entries(choices.others[concept] ?? {})) if (Object.values(rows).some((row) => row.flag === "pick")) all.add(id);
      return [...all].filter((id) => here.has(id)).length;
    };
    const picked = new Map();

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

    for (const control of $$(".finder input, .finder select")) control.addEventListener("input", arrange);
    choices.listeners.push(() => { countPicks(); });
    document.addEventListener("click", (event) => {
      const wanted = event.target.closest("[data-do]")?.dataset.do;
      if (wanted === "export") saveChoices(Object.keys(choices.mine), "all");
      if (wanted === "import") $("#import-file").click();
      if (wanted === "clear-filter") { for (const control of $$(".finder input, .finder select:not(#sort)")) control.value = ""; arrange(); }
    });
    $("#import-file").addEventListener("change", (event) => bringInFile(event.target));
    document.addEventListener("keydown", (event) => {
      if (typing(event) || event.ctrlKey || event.metaKey || event.altKey || !singleKeys()) return;
      if (event.key === "/") { event.preventDefault(); $("#search").focus(); }
      if (event.key === "?") $("#help").showModal();
    });
    countPicks();
    arrange();
  }

  // ═══ the questionnaire ═══

  function questionnairePage() {
    const main = $("#question");
    const answers = new Map(recall("answers", []).map((row) => [row.question, row]));
    const waiting = new Map(recall("unsent", []).map((row) => [row.ticket, row]));
    const shuffled = (list) => {
      const mixed = [...list];
      for (let i = mixed.length - 1; i > 0; i -= 1) {
        const j = crypto.getRandomValues(new Uint32Array(1))[0] % (i + 1);
        [mixed[i], mixed[j]] = [mixed[j], mixed[i]];
      }
      return mixed;
    };
    const queue = shuffled(DATA.questions.filter((question) => !answers.has(question.id)));
    const done = () => DATA.questions.filter((question) => answers.has(question.id)).length;

    let sending = false;

    async function send() {
      if (sending || !waiting.size) return;
      sending = true;
      const rows = [...waiting.values()];
      let kept = false;
      try {
        const answer = await fetch(`${SERVER}api/answers`, {
          method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ answers: rows }),
        });
        if (!answer.ok) throw new Error(String(answer.status));
        for (const row of rows) waiting.delete(row.ticket); // another may have come in the meantime
        remember("unsent", [...waiting.values()]);
        kept = true;
      } catch {
        say("The server does not answer. Your answers are kept here and will be sent.");
      }
      sending = false;
      if (waiting.size) setTimeout(send, kept ? 0 : 3000);
    }

    function keep(question, places) {
      const row = { question: question.id, places, at: new Date().toISOString(), ticket: ticket(), person: me.person };
      answers.set(question.id, row);
      remember("answers", [...answers.values()]);
      if (SERVER === null) return;
      waiting.set(row.ticket, row);
      remember("unsent", [...waiting.values()]);
      send();
    }

    const image = (id, alt) => element("img", { src: `${id}.webp`, alt, width: 512, height: 512 });

    function ask() {
      const bar = $("#progress");
      bar.max = DATA.questions.length;
      bar.value = done();
      const question = queue[0];
      if (!question) { finish(); return; }
      const places = [];
      const text = question.kind === "likeness"
        ? element("h2", { class: "asked" }, "Which shows the thing or the style of these pictures best?")
        : element("h2", { class: "asked" }, "Which shows this best: ", element("q", {}, element("bdi", {}, question.text)), "?");
      const held = question.references ? element("div", { class: "held" }, ...question.references.map((id, k) => image(id, `Reference ${k + 1}`))) : null;
      const buttons = shuffled(question.pictures).map((id, k) => element("button", { type: "button", "aria-pressed": "false", "data-id": id, "data-name": `Picture ${k + 1}` }, image(id, `Picture ${k + 1}`)));
      const next = element("button", { type: "button", class: "button", disabled: true }, "Next");
      const later = element("button", { type: "button", class: "tool" }, "I cannot tell");

      function paint() {
        for (const button of buttons) {
          const place = places.indexOf(button.dataset.id) + 1;
          button.setAttribute("aria-pressed", place > 0);
          button.setAttribute("aria-label", `${button.dataset.name}${place ? `, place ${place}` : ""}`);
          $(".rank", button)?.remove();
          if (place) button.append(element("span", { class: "rank" }, String(place)));
        }
        next.disabled = places.length < buttons.length;
      }
      for (const button of buttons) button.addEventListener("click", () => {
        const at = places.indexOf(button.dataset.id);
        if (at >= 0) places.splice(at); else places.push(button.dataset.id);
        if (places.length === buttons.length - 1) places.push(buttons.find((one) => !places.includes(one.dataset.id)).dataset.id);
        paint();
      });
      next.addEventListener("click", () => { keep(question, places); queue.shift(); ask(); });
      later.addEventListener("click", () => { queue.shift(); ask(); });
      main.replaceChildren(...[text, held, element("div", { class: "places" }, ...buttons),
        element("div", { class: "steps" }, next, later, element("span", { class: "note" }, `${done() + 1} of ${DATA.questions.length}`))].filter(Boolean));
      paint();
    }

    function finish() {
      const save = element("button", { type: "button", class: "button" }, "Save my answers");
      save.addEventListener("click", () => download("answers.json", JSON.stringify({ format: "ti-pipeline choices", answers: [...answers.values()] }, null, 1), "application/json"));
      const n = done();
      main.replaceChildren(
        element("h2", { class: "asked" }, n ? "That was all. Thank you!" : "That was all."),
        element("p", {}, SERVER === null ? `${plural(n, "answer")}: save them as a file and hand it to whoever asked you.` : `${plural(n, "answer")} kept.`),
        ...(SERVER === null && n ? [element("p", { class: "steps" }, save)] : []));
    }

    if (SERVER !== null) send();
    ask();
  }

  placeMenus();
  setUpHelp();
  ({ concept: conceptPage, overview: overviewPage, questionnaire: questionnairePage })[DATA.page]?.();
  if (SERVER !== null && DATA.page !== "questionnaire") { choices.send(); choices.listen(); }
})();
