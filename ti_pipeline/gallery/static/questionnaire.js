/* The questionnaire. */
"use strict";

(() => {
  const { DATA, MOST, SERVER, $, download, element, me, plural, post, say, sentence, store, ticket } = Gallery;
  const SOONEST = 1500; // milliseconds until the next try, twice as long after each that failed
  const LATEST = 60000;
  const main = $("#question");
  const answers = new Map(store.get("answers", []).map((row) => [row.question, row]));
  const waiting = new Map(store.get("unsent", []).map((row) => [row.ticket, row]));
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
  let retry;
  let pause = SOONEST;

  async function send() {
    if (sending || !waiting.size) return;
    clearTimeout(retry);
    sending = true;
    const rows = [...waiting.values()].slice(0, MOST);
    const { status, answer, wait } = await post("answers", rows);
    sending = false;
    if (status === 200) {
      for (const row of rows) waiting.delete(row.ticket); // another may have come in the meantime
      store.set("unsent", [...waiting.values()]);
      pause = SOONEST;
      send();
    } else if (status >= 400 && status < 500 && status !== 429) {
      say(`Your answers are kept here, but not saved: ${sentence(answer, status)}`); // the same again would be refused again
    } else {
      say("The server does not answer. Your answers are kept here and will be sent.");
      pause = Math.min(LATEST, 2 * pause);
      retry = setTimeout(send, Math.max(wait, pause));
    }
    if (!queue.length) finish();
  }

  function keep(question, places) {
    const row = { question: question.id, places, at: new Date().toISOString(), ticket: ticket(), person: SERVER === null ? me.alias : me.person };
    answers.set(question.id, row);
    store.set("answers", [...answers.values()]);
    if (SERVER === null) return;
    waiting.set(row.ticket, row);
    store.set("unsent", [...waiting.values()]);
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
    const save = element("button", { type: "button", class: "button" }, "Download my answers");
    save.addEventListener("click", () => download("answers.json", JSON.stringify({ format: "ti-pipeline choices", answers: [...answers.values()] }, null, 1), "application/json"));
    const n = done();
    main.replaceChildren(
      element("h2", { class: "asked" }, n ? "That was all. Thank you!" : "That was all."),
      element("p", {}, SERVER === null ? `${plural(n, "answer")}: download them and hand the file to whoever asked you.`
        : waiting.size ? `${plural(n, "answer")}, ${waiting.size} not saved yet.` : `${plural(n, "answer")} saved.`),
      ...(SERVER === null && n ? [element("p", { class: "steps" }, save)] : []));
  }

  if (SERVER !== null) send();
  ask();
})();
