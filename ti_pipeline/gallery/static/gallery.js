/* What every page of a gallery has. Classic scripts, because a page from a folder may not load modules: each of them adds to
   `Gallery`. No text from outside ever becomes markup: it goes through textContent and attributes only. */
"use strict";

const Gallery = (() => {
  const root = document.documentElement;
  const DATA = JSON.parse(document.getElementById("data").textContent);
  const SERVER = root.hasAttribute("data-server") ? root.dataset.root : null; // set by `gallery serve`
  const SITE = `${root.dataset.root}_site/`;
  // One address may show many galleries, one after the other: what a browser keeps of one is for no other.
  const ID = root.dataset.gallery || new URL(root.dataset.root || ".", location.href).pathname;
  const $ = (selector, within = document) => within.querySelector(selector);
  const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
  const plural = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;
  const ticket = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");

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

  // ── what the browser remembers: `store` of this gallery, `settings` of how someone likes to look at any ──

  function shelf(prefix) {
    return {
      prefix,
      get(key, otherwise) {
        try { return JSON.parse(localStorage.getItem(prefix + key)) ?? otherwise; } catch { return otherwise; }
      },
      set(key, value) {
        try { localStorage.setItem(prefix + key, JSON.stringify(value)); return true; } catch { return false; }
      },
      drop(key) { try { localStorage.removeItem(prefix + key); } catch { /* nothing is kept here, so there is nothing to drop */ } },
      keys() { try { return Object.keys(localStorage).filter((key) => key.startsWith(prefix)).map((key) => key.slice(prefix.length)); } catch { return []; } },
    };
  }
  const store = shelf(`ti-gallery/${ID}/`);
  const settings = shelf("ti-gallery/settings/");

  // ── files: bytes come from scripts beside the page, so that they come from a folder too ──

  const arriving = new Map();
  window.receiveBytes = (name, encoded) => {
    arriving.get(name)?.(Uint8Array.from(atob(encoded), (letter) => letter.charCodeAt(0)));
  };

  function addScript(source) {
    return new Promise((resolve, reject) => {
      const script = element("script", { src: source });
      script.onload = () => { script.remove(); resolve(); };
      script.onerror = () => {
        script.remove();
        reject(new Error(SERVER === null ? "a file of this gallery is missing." : "the server does not answer. Try again in a moment."));
      };
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
    if (!libraries.has(file)) {
      const loading = addScript(`${SITE}vendor/${file}`);
      libraries.set(file, loading);
      loading.catch(() => libraries.delete(file)); // the next try is a new one
    }
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
      ($("dialog[open]") ?? document.body).append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      if (!done) { say("The browser does not allow this page to copy."); return; }
    }
    say(`${what} copied`);
  }

  // ── layers: whatever covers the page is closed by the browser's Back, which a phone has at its edge ──

  const layers = [];
  let ours = 0; // steps back that a layer took itself, because it was closed in another way
  function openLayer(close) {
    layers.push(close);
    history.pushState({ layer: layers.length }, "");
  }
  function closedLayer(close) {
    const at = layers.indexOf(close);
    if (at < 0) return;
    layers.splice(at, 1);
    ours += 1;
    history.back();
  }
  addEventListener("popstate", () => {
    if (ours > 0) ours -= 1;
    else layers.pop()?.();
  });

  /** Open a dialog as a layer. */
  function showDialog(dialog) {
    if (dialog.open) return;
    const close = () => dialog.close();
    dialog.addEventListener("close", () => closedLayer(close), { once: true });
    dialog.showModal();
    openLayer(close);
  }

  // ── menus, help, keys ──

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

  const singleKeys = () => settings.get("single-keys", true);
  const showHelp = () => showDialog($("#help"));
  function setUpHelp() {
    const help = $("#help");
    if (!help) return;
    $("#help-button")?.addEventListener("click", showHelp);
    const box = $("#single-keys");
    box.checked = singleKeys();
    box.addEventListener("change", () => settings.set("single-keys", box.checked));
    help.addEventListener("click", (event) => { if (event.target === help) help.close(); });
  }

  const typing = (event) => event.target.closest?.("input:not([type=range]):not([type=radio]):not([type=checkbox]), textarea, select");
  const covered = () => Boolean($("dialog[open], .pswp, :popover-open"));

  placeMenus();
  setUpHelp();
  return {
    root, DATA, SERVER, ID, $, $$, plural, ticket, element, say, store, settings, loadBytes, library, download, copy,
    openLayer, closedLayer, showDialog, showHelp, singleKeys, typing, covered,
  };
})();
