/* Choices: mine in the browser, and on a server everyone's. */
"use strict";

(() => {
  const { DATA, SERVER, root, store, ticket, say, plural } = Gallery;
  const NOTHING = Object.freeze({ flag: "", stars: 0 });
  const MOST = Number(root.dataset.most) || 200; // rows that one request may bring
  const SOONEST = 1500; // milliseconds until the next try, twice as long after each that failed
  const LATEST = 60000;

  // `person` is a secret between this browser and the server; `alias` stands for it in files that are passed on
  const me = { person: ticket(), alias: ticket(), name: "", ...store.get("me", {}) };
  store.set("me", me);

  Gallery.me = me;
  const choices = Gallery.choices = {
    mine: store.get("choices", {}), // {concept: {picture: {flag, stars, at, ticket}}}
    others: {}, // {concept: {picture: {person: {name, flag, stars}}}}
    names: {}, // the last that each person gave
    waiting: new Map(), // sent, or to be sent, and not yet answered as saved
    revision: 0,
    past: [],
    future: [],
    made: new Set(), // tickets of this tab
    latest: new Map(), // its last one for each picture
    seen: new Set(), // tickets of mine that the server has
    listeners: [],
    last: "",
    trouble: "", // why saving has stopped, in the server's words
    pause: SOONEST,

    of(concept, picture) { return this.mine[concept]?.[picture] ?? NOTHING; },

    everyone(concept, picture) {
      const own = this.of(concept, picture);
      const rows = Object.values(this.others[concept]?.[picture] ?? {});
      return own.flag || own.stars ? [own, ...rows] : rows;
    },

    /** A time after every one that the pictures have, whatever the clock of the device says that chose before. */
    now(rows) {
      const before = [this.last, ...rows.map(({ concept, picture }) => this.of(concept, picture).at ?? "")].sort().at(-1);
      this.last = new Date(Math.max(Date.now(), before ? Date.parse(before) + 1 : 0)).toISOString();
      return this.last;
    },

    /** Change some of my choices at once; rows of {concept, picture, flag, stars, undoes}. Returns when. */
    change(rows, undoable = true) {
      const at = this.now(rows);
      if (undoable) {
        this.past.push(rows.map(({ concept, picture }) => ({ concept, picture, at, back: this.of(concept, picture) })));
        this.future = [];
      }
      for (const { concept, picture, flag, stars, undoes } of rows) this.set(concept, picture, { flag, stars, at, ticket: ticket() }, undoes);
      if (!this.persist()) say("This browser stores nothing: export your choices before you leave.");
      this.tell(rows);
      if (SERVER !== null) this.send();
      return at;
    },

    set(concept, picture, row, undoes) {
      (this.mine[concept] ??= {})[picture] = row;
      if (SERVER === null) return;
      const sent = { concept, picture, ...row, undoes, person: me.person, name: me.name };
      this.made.add(row.ticket);
      this.latest.set(`${concept}/${picture}`, row.ticket);
      this.waiting.set(row.ticket, sent);
      store.set(`waiting/${row.ticket}`, sent); // a key for each, so that two tabs never write over each other's
    },

    saved(tickets) {
      for (const one of tickets) { this.waiting.delete(one); store.drop(`waiting/${one}`); }
    },

    persist() {
      this.merge(store.get("choices", {}));
      return store.set("choices", this.mine);
    },

    /** Take over what another tab has chosen since; returns those rows. */
    merge(latest) {
      const news = [];
      for (const [concept, pictures] of Object.entries(latest)) {
        for (const [picture, row] of Object.entries(pictures)) {
          if ((row.at ?? "") <= (this.of(concept, picture).at ?? "")) continue;
          (this.mine[concept] ??= {})[picture] = row;
          news.push({ concept, picture });
        }
      }
      return news;
    },

    undo() { return this.revert(this.past, this.future, "Undone"); },
    redo() { return this.revert(this.future, this.past, "Redone"); },

    /** Put the last step's pictures back, but for those that were changed elsewhere since. Returns the first of them. */
    revert(from, to, said) {
      const step = from.pop();
      if (!step) return undefined;
      const still = step.filter((row) => this.of(row.concept, row.picture).at === row.at);
      if (still.length) {
        const inverse = still.map((row) => ({ ...row, back: this.of(row.concept, row.picture) }));
        const at = this.change(still.map(({ concept, picture, back }, k) => ({ concept, picture, ...back, undoes: inverse[k].back.ticket })), false);
        to.push(inverse.map((row) => ({ ...row, at })));
        for (const { concept, picture, back } of still) this.renew(concept, picture, back.at, at);
      }
      this.tell([]);
      say(still.length === step.length ? said : still.length ? "Only in part: some have been changed elsewhere since." : "Left as it is: it was changed elsewhere since.");
      return still[0]?.picture;
    },

    /** The state of a picture that was made at `before` is there again, made at `at`: older steps lead away from it. */
    renew(concept, picture, before, at) {
      for (const row of [...this.past, ...this.future].flat()) {
        if (before && row.concept === concept && row.picture === picture && row.at === before) row.at = at;
      }
    },

    tell(rows) { for (const listener of this.listeners) listener(rows); },

    isWaiting(concept, picture) {
      for (const row of this.waiting.values()) if (row.concept === concept && row.picture === picture) return true;
      return false;
    },

    /** Every choice of mine goes to the server again with the name that I have given since. */
    rename(name) {
      me.name = name;
      store.set("me", me);
      if (SERVER !== null) this.sendAgain(() => true);
    },

    /** Hand over what waits, until the server has said that it is saved. Sent twice, it is saved once. */
    async send() {
      if (this.sending || this.waiting.size === 0) return;
      clearTimeout(this.next);
      this.sending = true;
      const rows = [...this.waiting.values()].slice(0, MOST);
      const { status, answer, wait } = await post("choices", rows);
      this.sending = false;
      if (status === 200 || status === 409) {
        const refused = new Set(answer.refused);
        this.saved(rows.map((row) => row.ticket));
        for (const row of answer.newer ?? []) (this.mine[row.concept] ??= {})[row.picture] = row;
        if (refused.size) { store.set("choices", this.mine); say("Left as it is: it was changed elsewhere since."); }
        this.answered(answer);
        Object.assign(this, { trouble: "", failed: false, pause: SOONEST });
      } else if (status >= 400 && status < 500 && status !== 429) {
        this.trouble = sentence(answer, status); // the same again would be refused again: the next choice tries once more
      } else {
        this.failed = true;
        this.pause = Math.min(LATEST, 2 * this.pause);
      }
      this.tell(rows);
      if (this.waiting.size && !this.trouble) this.next = setTimeout(() => this.send(), this.failed ? Math.max(wait, this.pause) : 0);
    },

    answered({ you }) {
      if (!you || you === me.alias) return;
      me.alias = you;
      store.set("me", me);
    },

    /** What others, and I elsewhere, have chosen since the last time. */
    async listen(pause = SOONEST) {
      let next = Math.min(LATEST, 2 * pause);
      try {
        const answer = await fetch(`${SERVER}api/choices?since=${this.revision}`, { headers: { "Gallery-Person": me.person } });
        if (answer.ok) {
          const news = await answer.json();
          this.take(news);
          if (news.choices.length) { this.listen(); return; } // there may be more than one answer's worth
          next = SOONEST;
          if (!this.caughtUp) this.handOver();
          if (this.failed && !this.sending) this.send(); // it is back
        }
      } catch { /* the next round tries again; what waits is shown as not yet saved */ }
      setTimeout(() => this.listen(next), document.hidden ? Math.max(next, 10000) : next);
    },

    take({ revision, choices: news, you }) {
      for (const row of news) {
        this.names[row.person] = row.name;
        if (row.person === me.person) {
          this.seen.add(row.ticket);
          const old = this.made.has(row.ticket) && this.latest.get(`${row.concept}/${row.picture}`) !== row.ticket;
          if (!old && !this.isWaiting(row.concept, row.picture)) (this.mine[row.concept] ??= {})[row.picture] = row;
          continue;
        }
        const people = ((this.others[row.concept] ??= {})[row.picture] ??= {});
        if (row.flag || row.stars) people[row.person] = row;
        else delete people[row.person];
      }
      this.revision = revision;
      this.answered({ you });
      if (news.length) { store.set("choices", this.mine); this.tell(news); }
    },

    /** What I chose and this server has never seen, such as after it was given another database. */
    handOver() {
      this.caughtUp = true;
      this.sendAgain((row) => !this.seen.has(row.ticket) && !this.waiting.has(row.ticket));
    },

    sendAgain(wanted) {
      for (const [concept, pictures] of Object.entries(this.mine)) {
        for (const [picture, { flag, stars, at, ticket: old }] of Object.entries(pictures)) {
          if (!wanted({ ticket: old }) || !(flag || stars)) continue;
          this.saved([old]); // the new row says the same, and more
          this.set(concept, picture, { flag, stars, at, ticket: ticket() });
        }
      }
      store.set("choices", this.mine);
      this.send();
    },

    start() {
      addEventListener("storage", ({ key }) => {
        if (key === `${store.prefix}me`) me.name = store.get("me", me).name;
        if (key === `${store.prefix}choices`) this.catchUp();
      });
      addEventListener("pageshow", (event) => { if (event.persisted) this.catchUp(); }); // what happened while it lay in the browser's cache
      if (SERVER === null) return;
      for (const key of store.keys()) {
        const row = key.startsWith("waiting/") && store.get(key);
        if (row) this.waiting.set(row.ticket, { ...row, person: me.person, name: me.name });
      }
      addEventListener("online", () => this.send());
      this.send();
      this.listen();
    },

    catchUp() {
      const news = this.merge(store.get("choices", {}));
      if (news.length) this.tell(news);
    },

    exported(concepts) {
      const rows = [];
      for (const concept of concepts) {
        for (const [picture, { flag, stars, at, ticket: own }] of Object.entries(this.mine[concept] ?? {})) {
          if (flag || stars) rows.push({ concept, picture, flag, stars, at, ticket: own, person: me.alias, name: me.name });
        }
      }
      return { format: "ti-pipeline choices", gallery: Gallery.ID, choices: rows };
    },
  };

  /** One batch to the server: its status (0 without an answer), what it said, and the milliseconds that it asks to wait. */
  const post = Gallery.post = async (what, rows) => {
    try {
      const answer = await fetch(`${SERVER}api/${what}`, {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ [what]: rows }),
      });
      const wait = 1000 * (Number(answer.headers.get("Retry-After")) || 0);
      return { status: answer.status, answer: await answer.json().catch(() => ({})), wait };
    } catch { return { status: 0, answer: {}, wait: 0 }; }
  };

  const sentence = Gallery.sentence = ({ detail }, status) => {
    if (status === 401) return "The gallery asks for its secret again: reload the page.";
    return typeof detail === "string" ? detail : "The server refuses this.";
  };

  Gallery.MOST = MOST;
  Gallery.saveFile = (concepts, name) => {
    const file = choices.exported(concepts);
    if (!file.choices.length) { say("Nothing has been chosen yet."); return; }
    Gallery.download(`choices-${name}.json`, JSON.stringify(file, null, 1), "application/json");
    say(`${plural(file.choices.length, "choice")} exported`);
  };
})();
