"use strict";
// The list of utterances: filtered, sorted, and drawn fifty rows at a time to stay fast at any length.

const list = {
  PAGE: 50,
  order: [],       // numbers of the rows that match, in display order
  page: 0,
  place: 0,        // index into `order` of the row that the keyboard has selected
  search: "", sort: "", descending: false, corpus: "", role: "", audible: false,

  open() {
    const sort = document.getElementById("sort");
    sort.append(el("option", { value: "" }, "dataset order"), el("option", { value: "id" }, "id"));
    for (const { name } of site.index.scores) sort.append(el("option", { value: name }, label(name)));
    const corpus = document.getElementById("corpus");
    corpus.append(el("option", { value: "" }, "all"));
    site.index.corpora.forEach((name, number) => corpus.append(el("option", { value: number }, name)));
    const on = (id, event, set) => document.getElementById(id).addEventListener(event, (what) => { set(what.target); this.find(); });
    on("search", "input", (field) => { this.search = field.value; });
    on("sort", "change", (field) => { this.sortBy(field.value); });
    on("direction", "click", () => { this.descending = !this.descending; });
    on("corpus", "change", (field) => { this.corpus = field.value; });
    on("role", "change", (field) => { this.role = field.value; });
    on("audible", "change", (field) => { this.audible = field.checked; });
    document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
    this.find();
  },

  /** Sorts by a score, worst or highest first: ascending if low values are worse, descending otherwise. */
  sortBy(name) {
    this.sort = name;
    this.descending = Boolean(site.scores[name]) && !/logprob|cosine|agreement|coverage|language_prob/.test(name);
  },

  find() {
    const wanted = this.search.trim().toLowerCase(), found = [];
    for (let row = 0; row < site.index.total; row++) {
      if (this.corpus !== "" && site.corpora[row] !== Number(this.corpus)) continue;
      if (this.role !== "" && site.roles[row] !== this.role) continue;
      if (this.audible && !site.hasSound(row)) continue;
      if (wanted && !site.ids[row].toLowerCase().includes(wanted) && !site.texts[row].toLowerCase().includes(wanted)) continue;
      found.push(row);
    }
    const sign = this.descending ? -1 : 1;
    if (this.sort === "id") {
      const order = new Intl.Collator("en", { numeric: true });
      found.sort((a, b) => sign * order.compare(site.ids[a], site.ids[b]));
    } else if (this.sort) {
      const values = site.scores[this.sort];
      const has = (row) => values[row] === values[row];
      found.sort((a, b) => (has(a) && has(b) ? sign * (values[a] - values[b]) || a - b : has(b) - has(a) || a - b));
    } else if (this.descending) {
      found.reverse();
    }
    this.order = found;
    this.page = this.place = 0;
    this.draw();
  },

  columns() {
    const usual = ["seconds", "wer_vs_reference", "unit_error_rate", "target_cer", "mean_logprob", "versions_apart"];
    const there = new Set(site.index.scores.map(({ name }) => name));
    const names = usual.filter((name) => there.has(name));
    return there.has(this.sort) && !names.includes(this.sort) ? [...names, this.sort] : names;
  },

  draw() {
    const columns = this.columns(), start = this.page * this.PAGE;
    const rows = this.order.slice(start, start + this.PAGE);
    const head = (name, text, number) => el("th", {
      class: (number ? "number" : "") + (name === this.sort || !number ? "" : " extra"),
      "aria-sort": name === this.sort ? (this.descending ? "descending" : "ascending") : "none",
    }, el("button", { type: "button", onclick: () => {
      if (this.sort === name) this.descending = !this.descending; else this.sortBy(name);
      this.find();
    } }, text));
    const table = document.getElementById("table");
    table.tHead.replaceChildren(el("tr", {}, head("id", "id", false), el("th", {}, "text"), ...columns.map((name) => head(name, label(name), true))));
    table.tBodies[0].replaceChildren(...rows.map((row, place) => el("tr", {
      "data-place": start + place,
      onclick: (event) => { if (!event.target.closest("a")) location.hash = rowLink(site.ids[row]); },
    },
      el("td", { class: "id" }, el("a", { href: rowLink(site.ids[row]) }, site.ids[row]),
        el("span", { class: `role ${ROLES[site.roles[row]]}` }, ROLES[site.roles[row]]),
        site.hasSound(row) ? el("span", { class: "sounds", title: "has sound", role: "img", "aria-label": "has sound" }, "♪") : null),
      el("td", { class: "text" }, site.texts[row]),
      ...columns.map((name) => el("td", { class: "number" + (name === this.sort ? "" : " extra") }, shown(name, site.scores[name][row]))))));
    document.getElementById("sort").value = this.sort;
    const direction = document.getElementById("direction");
    direction.textContent = this.descending ? "descending" : "ascending";
    direction.setAttribute("aria-pressed", this.descending);
    const count = this.order.length.toLocaleString("en");
    document.getElementById("found").textContent = this.order.length
      ? `${(start + 1).toLocaleString("en")} to ${(start + rows.length).toLocaleString("en")} of ${count} utterances`
      : "No utterance matches. Shorten the search, or choose another corpus or role.";
    const go = (text, page, off) => el("button", { type: "button", disabled: off, onclick: () => { this.turn(page); } }, text);
    const last = Math.max(0, Math.ceil(this.order.length / this.PAGE) - 1);
    document.getElementById("pager").replaceChildren(
      go("first", 0, this.page === 0), go("previous", this.page - 1, this.page === 0),
      el("span", {}, `page ${(this.page + 1).toLocaleString("en")} of ${(last + 1).toLocaleString("en")}`),
      go("next", this.page + 1, this.page === last), go("last", last, this.page === last));
    this.mark();
  },

  turn(page) {
    this.page = page;
    this.place = page * this.PAGE;
    this.draw();
    window.scrollTo(0, 0);
  },

  mark() {
    for (const row of document.querySelectorAll("#table tbody tr")) {
      const here = Number(row.dataset.place) === this.place;
      row.classList.toggle("here", here);
      if (here && this.moved) row.scrollIntoView({ block: "nearest" });
    }
    this.moved = false;
  },

  /** Moves the keyboard selection; returns the selected row's number, or undefined at either end. */
  move(step) {
    const place = this.place + step;
    if (place < 0 || place >= this.order.length) return undefined;
    this.place = place;
    this.moved = true;
    const page = Math.floor(place / this.PAGE);
    if (page !== this.page) { this.page = page; this.draw(); } else { this.mark(); }
    return this.order[place];
  },
};
