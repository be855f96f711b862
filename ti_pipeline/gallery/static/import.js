/* Importing choices: from a file, or from what this browser kept before each gallery had a place of its own there. */
"use strict";

(() => {
  const { DATA, ID, $, choices, plural, say, showDialog } = Gallery;
  const LARGEST = 32 * 1024 * 1024; // bytes of a file: far more than anyone chooses
  const known = DATA.page === "concept" ? { [DATA.concept]: new Set(Object.keys(DATA.pictures)) }
    : Object.fromEntries(Object.entries(DATA.concepts ?? {}).map(([concept, pictures]) => [concept, new Set(pictures)]));

  const isChoice = (row) => (
    typeof row === "object" && row !== null && typeof row.concept === "string" && typeof row.picture === "string"
    && /^[a-z0-9][a-z0-9_-]{0,63}$/.test(row.concept) && /^[0-9a-f]{16}$/.test(row.picture)
    && ["pick", "reject", ""].includes(row.flag) && Number.isInteger(row.stars) && row.stars >= 0 && row.stars <= 5);

  /** The choices in a file that are for this gallery. Throws an Error with a sentence for people. */
  function read(text) {
    let file;
    try { file = JSON.parse(text); } catch { throw new Error("This is not a file of choices: it is no JSON."); }
    if (file?.format !== "ti-pipeline choices" || !Array.isArray(file.choices)) throw new Error("This is not a file of choices that a gallery exported.");
    const rows = file.choices.filter(isChoice);
    const here = file.gallery === ID ? rows : rows.filter(({ concept, picture }) => known[concept]?.has(picture));
    if (rows.length && !here.length) throw new Error("Nothing imported: these choices are for pictures that this page does not show.");
    if (!rows.length) throw new Error("Nothing imported: there are no choices in this file.");
    return here;
  }

  /** Take rows over as mine; where I have chosen otherwise, I am asked first. */
  function bringIn(rows) {
    const last = new Map(rows.map(({ concept, picture, flag, stars }) => [`${concept}/${picture}`, { concept, picture, flag, stars }]));
    const changes = [...last.values()].filter((row) => {
      const own = choices.of(row.concept, row.picture);
      return own.flag !== row.flag || own.stars !== row.stars;
    });
    const isMine = ({ concept, picture }) => { const own = choices.of(concept, picture); return Boolean(own.flag || own.stars); };
    const differ = changes.filter(isMine);
    if (differ.length) ask(changes, differ.length, isMine);
    else take(changes);
  }

  function take(rows) {
    if (rows.length) choices.change(rows);
    say(rows.length ? `${plural(rows.length, "choice")} imported` : "Nothing to import: you have chosen the same.");
  }

  function ask(changes, differ, isMine) {
    const dialog = $("#import-dialog");
    const fresh = changes.length - differ;
    $("p", dialog).textContent = `${plural(differ, "picture")} you have chosen otherwise than the file.${fresh ? ` ${plural(fresh, "choice is", "choices are")} new.` : ""}`;
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      if (dialog.returnValue === "mine") take(changes.filter((row) => !isMine(row)));
      if (dialog.returnValue === "file") take(changes);
    }, { once: true });
    showDialog(dialog);
  }

  const input = $("#import-file");
  if (!input) return;
  input.addEventListener("change", async () => {
    const file = input.files[0];
    try {
      if (file.size > LARGEST) throw new Error("This is not a file of choices: it is too large.");
      bringIn(read(await file.text()));
    } catch (error) {
      say(error.name === "NotReadableError" ? "The file cannot be read." : error.message);
    }
    input.value = "";
  });

  // An earlier version kept the choices of every gallery in one place: whose they were shows only in their pictures.
  const earlier = [];
  try {
    for (const [concept, pictures] of Object.entries(JSON.parse(localStorage.getItem("ti-gallery/choices")) ?? {})) {
      for (const [picture, row] of Object.entries(pictures)) {
        const choice = { concept, picture, flag: row?.flag, stars: row?.stars };
        if (isChoice(choice) && (choice.flag || choice.stars) && known[concept]?.has(picture)) earlier.push(choice);
      }
    }
  } catch { /* nothing of that kind */ }
  const button = $("[data-do=import-earlier]");
  button.parentElement.hidden = !earlier.length;
  button.addEventListener("click", () => bringIn(earlier));
})();
