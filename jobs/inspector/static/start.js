"use strict";
// Routing by the address (#home, #rows, #rows/<score>, #row/<id>), and keyboard control.

const sections = ["overview", "list", "row"];

function show(name) {
  for (const section of sections) document.getElementById(section).hidden = section !== name;
  document.querySelectorAll("header nav a").forEach((link, place) => {
    const here = place === (name === "overview" ? 0 : 1);
    if (here) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  });
}

async function follow() {
  const hash = location.hash.slice(1);
  row.close();
  if (hash.startsWith("row/")) {
    let id = hash.slice(4);
    try { id = decodeURIComponent(id); } catch { /* not valid encoding, perhaps typed by hand: use it as it is */ }
    show("row");
    window.scrollTo(0, 0);
    await row.open(id);
  } else if (hash.startsWith("rows")) {
    const name = hash.slice(5);
    if (site.scores[name]) {
      list.sortBy(name);
      list.find();
      history.replaceState(null, "", "#rows");
    }
    show("list");
  } else {
    show("overview");
    overview.draw();
  }
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !site.index) return;
  const typing = event.target.closest("input[type=search], select");
  const inRow = !document.getElementById("row").hidden, inList = !document.getElementById("list").hidden;
  const step = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1, ArrowRight: inRow ? 1 : 0, ArrowLeft: inRow ? -1 : 0 }[event.key];
  if (event.key === "Escape") {
    if (typing) event.target.blur(); else if (inRow) location.hash = "#rows";
  } else if (typing) {
    if (event.key === "Enter" && event.target.id === "search") event.target.blur();
    return;
  } else if (event.key === "/") {
    if (!inList) location.hash = "#rows";
    show("list");
    document.getElementById("search").focus();
  } else if (step && (inRow || inList)) {
    if (inRow && event.key.startsWith("Arrow") && event.target.closest("audio")) return;
    if (inRow && (event.key === "ArrowDown" || event.key === "ArrowUp")) return;
    const number = list.move(step);
    if (inRow && number !== undefined) location.hash = rowLink(site.ids[number]);
  } else if (event.key === "Enter" && inList && !event.target.closest("a, button")) {
    if (list.order.length) location.hash = rowLink(site.ids[list.order[list.place]]);
  } else if (event.key === " " && inRow && !event.target.closest("button, a, summary, audio")) {
    row.toggle();
  } else {
    return;
  }
  event.preventDefault();
});

site.open().then(() => {
  list.open();
  document.documentElement.dataset.ready = "";
  window.addEventListener("hashchange", follow);
  dark.addEventListener("change", follow);
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width) { width = window.innerWidth; if (!document.getElementById("overview").hidden) overview.draw(); }
  });
  return follow();
}).catch((error) => {
  document.getElementById("main").prepend(el("p", { class: "note", role: "alert" }, String(error.message)));
});
