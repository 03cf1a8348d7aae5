"use strict";
// Charts of the overview: the distribution of each score, and the sizes of the shards.

const overview = {
  drawn: [],

  draw() {
    this.drawn.forEach((chart) => chart.destroy());
    this.drawn = [];
    const scores = document.getElementById("scores");
    scores.replaceChildren();
    for (const { name, says } of site.index.scores) this.score(scores, name, says);
    if (!site.index.scores.length) scores.append(el("p", { class: "note" }, "No scores yet."));
    const shards = document.getElementById("shards");
    shards.replaceChildren();
    for (const [table, sizes] of Object.entries(site.index.shards)) {
      const figure = el("figure", {}, el("figcaption", {}, el("b", {}, table),
        ` ${counted(sizes.length, "shard")}, ${+(sizes.reduce((sum, size) => sum + size, 0) / 1e6).toPrecision(3)} MB`));
      shards.append(figure);
      this.bars(figure, sizes.map((_, shard) => shard), sizes.map((size) => size / 1e6), "MB", `shard sizes of ${table}`, { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 10000] });
    }
  },

  score(into, name, says) {
    const values = site.scores[name].filter((value) => value === value).sort();
    const at = (share) => values[Math.min(values.length - 1, Math.floor(share * values.length))];
    const bins = 32, [low, high] = at(0) < at(0.995) ? [at(0), at(0.995)] : [at(0) - 0.5, at(0) + 0.5], counts = new Array(bins).fill(0);
    for (const value of values) counts[Math.min(bins - 1, Math.floor((bins * (value - low)) / (high - low)))] += 1;
    const centers = counts.map((_, bin) => low + ((bin + 0.5) * (high - low)) / bins);
    const figure = el("figure", {},
      el("figcaption", {},
        el("a", { href: `#rows/${name}` }, label(name)),
        ` median ${shown(name, at(0.5))} of ${counted(values.length, "row")}`,
        el("small", {}, says)));
    into.append(figure);
    this.bars(figure, centers, counts, "rows", `${label(name)}: ${says}. Median ${shown(name, at(0.5))}`,
      isShare(name) ? { values: (_, ticks) => ticks.map((tick) => `${+(100 * tick).toFixed(1)} %`) } : {});
  },

  bars(into, x, y, what, description, across = {}) {
    const place = el("div", { class: "chart", role: "img", "aria-label": description });
    into.append(place);
    const step = x.length > 1 ? x[1] - x[0] : 1;
    const axis = { stroke: color("quiet"), grid: { show: false }, ticks: { show: false }, font: "11px system-ui" };
    const chart = new uPlot({
      width: place.clientWidth || 300,
      height: 150,
      legend: { show: false },
      cursor: { y: false, drag: { x: false } },
      scales: { x: { time: false, range: [x[0] - step / 2, x[x.length - 1] + step / 2] }, y: { range: (_, __, most) => [0, most || 1] } },
      axes: [{ ...axis, size: 26, space: 60, ...across }, { ...axis, size: 48, grid: { stroke: color("line"), width: 1 } }],
      series: [{}, { label: what, fill: color("accent"), stroke: color("accent"), width: 0, paths: uPlot.paths.bars({ size: [0.86] }), points: { show: false } }],
    }, [x, y], place);
    this.drawn.push(chart);
  },
};
