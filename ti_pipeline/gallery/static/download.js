/* Downloads: pictures with their recipes, contact sheets, the word. */
"use strict";

(() => {
  const { DATA, $, $$, download, element, library, loadBytes, plural, say, settings, wall } = Gallery;
  const { concept, pictures } = DATA;
  const { stateOf } = wall;

  function scope() {
    const wanted = $("input[name=scope]:checked").value === "picks" ? wall.picks() : wall.shown();
    if (!wanted.length) say("Nothing has been picked yet. Pick with P, or choose everything shown.");
    return wanted;
  }

  const bytesOf = (id) => loadBytes(id, pictures[id].carrier);
  const bytesAt = (place) => loadBytes(place, `${place}.js`);

  // ── the tool that somebody works with, for every concept the same ──

  const tools = $$("input[name=tool]");
  const chosen = () => tools.find((tool) => tool.checked);
  function showTool() {
    if (tools.length) $("#take-tool").textContent = chosen().closest("label").textContent;
  }
  for (const tool of tools) {
    if (tool.value === settings.get("tool")) tool.checked = true;
    tool.addEventListener("change", () => { settings.set("tool", tool.value); showTool(); });
  }
  showTool();

  /** Its files of the word, by their names, as fflate packs them. */
  async function wordFiles() {
    const files = {};
    for (const [name, place] of Object.entries(DATA.word.takes[chosen()?.value] ?? {})) files[name] = [await bytesAt(place), { level: 0 }];
    return files;
  }

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
      Object.assign(files, await wordFiles());
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
      const files = Object.entries(await wordFiles());
      let [name, [content]] = files[0];
      if (files.length > 1) {
        await library("fflate.umd.js");
        [name, content] = [`${DATA.word.name}.zip`, fflate.zipSync(Object.fromEntries(files))];
      }
      download(name, content, "application/octet-stream");
      say(`${name} downloaded`);
    });
  }

  async function takeFile(place, name) {
    await busy("Fetching …", async () => {
      download(name, await bytesAt(place), "application/octet-stream");
      say(`${name} downloaded`);
    });
  }

  Object.assign(wall, { takeZip, takeSheetPng, takeSheetPdf, takeOne, takeWord, takeFile });
})();
