"use strict";
// A recording on a time axis: a lane for each channel with its cuts, which lead to their utterances.

const CUT_PIXELS = 8;  // per second, unless the recording fits into the window

/** Shows the cuts of a recording, the row `current` marked. Call `show` once the element is in the document. */
function recordingView(cuts, current) {
  const end = Math.max(...cuts.map((cut) => cut.end)), channels = [...new Set(cuts.map((cut) => cut.channel))].sort();
  const blocks = cuts.map((cut) => {
    const what = `${cut.role}${cut.turn === null ? "" : `, turn ${cut.turn}`}, ${cut.start.toFixed(1)} to ${cut.end.toFixed(1)} s`;
    return el("a", {
      class: `cut ${cut.role}${cut.turn === null && cut.role !== "narrator" ? " inside" : ""}`,
      href: rowLink(site.ids[cut.number]), "aria-current": cut.number === current ? "true" : false,
      "aria-label": what, title: `${what}: ${site.texts[cut.number]}`,
    }, cut.turn === null ? "" : String(cut.turn));
  });
  const lanes = channels.map((channel) => el("div", { class: "lane" },
    el("span", { class: "note channel" }, channel < 0 ? "all channels" : `channel ${channel}`),
    ...blocks.filter((_, place) => cuts[place].channel === channel)));
  const axis = el("div", { class: "lanes" }, ...lanes, el("div", { class: "lane marks" }));
  const view = el("div", { class: "scroller recording", tabindex: "0", role: "group", "aria-label": "cuts of the recording" }, axis);
  view.show = () => {
    const scale = Math.max(view.clientWidth / (end + 1), Math.min(CUT_PIXELS, 30000 / end));
    axis.style.width = `${(end + 1) * scale}px`;
    cuts.forEach((cut, place) => {
      Object.assign(blocks[place].style, { left: `${cut.start * scale}px`, width: `${Math.max(2, (cut.end - cut.start) * scale - 1)}px` });
    });
    const step = [1, 2, 5, 10, 30, 60, 300, 600].find((seconds) => seconds * scale > 60) || 1800;
    for (let time = 0; time < end; time += step) {
      const mark = el("span", { class: "note" }, time < 60 ? `${time} s` : `${Math.floor(time / 60)}:${String(time % 60).padStart(2, "0")}`);
      mark.style.left = `${time * scale}px`;
      axis.lastChild.append(mark);
    }
    const shown = cuts.find((cut) => cut.number === current);
    view.scrollLeft = (shown.start + shown.end) * scale / 2 - view.clientWidth / 2;
  };
  return view;
}
