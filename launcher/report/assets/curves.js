// Curves of a page by uPlot: zoom, values under the pointer, one cursor for all. Without this the drawn figures stay.
"use strict";
(() => {
const found = JSON.parse(document.getElementById("curves-data").textContent), made = [];
const theme = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const short = value => value == null ? "" : Math.abs(value) >= 1e4 ? value.toLocaleString("en") : String(+value.toPrecision(4));
const steps = x => Array.isArray(x) ? x : Array.from({length: x.count}, (_, place) => x.first + place * x.every);
const all = [Math.min(...found.map(chart => chart.from)), Math.max(...found.map(chart => chart.to))];
let view = all, following = false;

function show(from, to) {
  const least = Math.max(all[0], from), most = Math.min(all[1], to);
  view = most - least < 4 ? view : [least, most];
  following = true;
  for (const plot of made) plot.setScale("x", {min: view[0], max: view[1]});
  following = false;
}
const zoom = factor => {
  const middle = made[0].cursor.left >= 0 ? made[0].posToVal(made[0].cursor.left, "x") : (view[0] + view[1]) / 2;
  show(middle - (middle - view[0]) * factor, middle + (view[1] - middle) * factor);
};
function point(plot, offset) {
  const x = plot.data[0], now = plot.cursor.idx == null ? (offset > 0 ? -1 : x.length) : plot.cursor.idx;
  const at = x[Math.max(0, Math.min(x.length - 1, now + offset))];
  if (at < view[0] || at > view[1]) show(at - (view[1] - view[0]) / 2, at + (view[1] - view[0]) / 2);
  for (const each of made) each.setCursor({left: each.valToPos(at, "x"), top: 10});
}
const KEYS = {ArrowRight: plot => point(plot, 1), ArrowLeft: plot => point(plot, -1), "+": () => zoom(0.5), "-": () => zoom(2), "0": () => show(...all)};

function under(plot, chart) {
  const {ctx, bbox} = plot, at = x => Math.round(plot.valToPos(x, "x", true));
  ctx.save();
  ctx.beginPath(); ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height); ctx.clip();
  const word = (words, x, y) => { ctx.strokeStyle = theme("--paper"); ctx.lineWidth = 3; ctx.strokeText(words, x, y); ctx.fillStyle = theme("--ink"); ctx.fillText(words, x, y); };
  ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
  for (const [from, to, name, colour] of chart.bands) {
    ctx.globalAlpha = 0.12; ctx.fillStyle = colour;
    ctx.fillRect(at(from), bbox.top, Math.max(1, at(to) - at(from)), bbox.height);
    ctx.globalAlpha = 1; ctx.textAlign = "left";
    word(name, at(from) + 4, bbox.top + bbox.height - 6);
  }
  chart.marks.forEach(([x, name, colour], place) => {
    if (x < view[0] || x > view[1]) return;
    const right = at(x) > bbox.left + 0.7 * bbox.width;
    ctx.strokeStyle = colour; ctx.lineWidth = 1.2; ctx.setLineDash([4, 4]);
    ctx.beginPath(); ctx.moveTo(at(x), bbox.top); ctx.lineTo(at(x), bbox.top + bbox.height); ctx.stroke();
    ctx.setLineDash([]); ctx.textAlign = right ? "right" : "left";
    word(name, at(x) + (right ? -5 : 5), bbox.top + (12 + 14 * (place % 6)) * devicePixelRatio);
  });
  ctx.restore();
}

// Behind the curves: from the least to the greatest draw, apart at each gap.
function spreads(plot, chart) {
  const {ctx, bbox} = plot, at = (x, y) => [plot.valToPos(x, "x", true), plot.valToPos(y, "y", true)];
  ctx.save();
  ctx.beginPath(); ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height); ctx.clip();
  ctx.globalAlpha = 0.15;
  for (const {spread, colour} of chart.series) {
    ctx.fillStyle = colour;
    for (const piece of spread) {
      ctx.beginPath();
      for (const [x, , high] of piece) ctx.lineTo(...at(x, high));
      for (const [x, low] of [...piece].reverse()) ctx.lineTo(...at(x, low));
      ctx.fill();
    }
  }
  ctx.restore();
}
function dots(plot, chart) {
  const {ctx} = plot;
  for (const [x, y, , colour] of chart.dots) {
    if (x < view[0] || x > view[1]) continue;
    ctx.strokeStyle = colour; ctx.fillStyle = theme("--paper"); ctx.lineWidth = 1.8 * devicePixelRatio;
    ctx.beginPath(); ctx.arc(plot.valToPos(x, "x", true), plot.valToPos(y, "y", true), 4 * devicePixelRatio, 0, 7); ctx.fill(); ctx.stroke();
  }
}

for (const chart of found) {
  const figure = document.getElementById(chart.key), place = figure.querySelector(".wide"), x = steps(chart.x);
  const axis = {stroke: () => theme("--muted"), grid: {stroke: () => theme("--grid"), width: 1}, ticks: {stroke: () => theme("--grid"), width: 1}, font: "12px system-ui, sans-serif"};
  // A series without a value at another's step goes on; a gap reaches from its own last value to its own next one.
  const gaps = (plot, series) => chart.gaps.map(gap => {
    const own = x.filter((_, place) => plot.data[series][place] !== undefined);
    return [own.findLast(each => each < gap), own.find(each => each >= gap)];
  }).filter(ends => !ends.includes(undefined)).map(ends => ends.map(each => plot.valToPos(each, "x", true))).sort((a, b) => a[0] - b[0]);
  const [least, most] = chart.range, whole = () => view[0] <= all[0] && view[1] >= all[1];
  const range = (plot, low, high) => whole() || low == null ? [least, most] : chart.log ? [low / 1.1, high * 1.1]
    : [low - 0.05 * (high - low || 1), high + 0.05 * (high - low || 1)];
  const plot = new uPlot({
    width: place.clientWidth, height: 320, cursor: {sync: {key: "curves", scales: ["x", null]}, drag: {x: true, y: false}, y: false, dataIdx: (_, series, at) => at},
    scales: {x: {time: false, min: all[0], max: all[1]}, y: {distr: chart.log ? 3 : 1, range}},
    axes: [{...axis, size: 34, values: (_, at) => at.map(short)}, {...axis, size: 62, label: chart.label, labelSize: 20, labelFont: "12px system-ui, sans-serif", values: (_, at) => at.map(each => each == null ? "" : short(chart.log ? +each.toPrecision(2) : each))}],
    series: [{label: "step"}, ...chart.series.map(({name, colour, dash, marked}) => ({label: name, stroke: colour, width: 1.8, dash, gaps,
      points: {show: marked, size: 5, fill: colour}, value: (_, value) => value == null ? "–" : short(value)}))],
    hooks: {drawAxes: [plot => spreads(plot, chart)], draw: [plot => under(plot, chart), plot => dots(plot, chart)], setScale: [(plot, key) => {
      const {min, max} = plot.scales.x;
      if (key === "x" && !following && (min !== view[0] || max !== view[1])) show(min, max);
    }]},
  }, [x, ...chart.series.map(each => each.y.map(value => value === null ? undefined : value))], place);
  plot.over.addEventListener("dblclick", () => show(...all));
  made.push(plot);
  figure.classList.add("live");
  place.addEventListener("keydown", event => {
    if (!KEYS[event.key] || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault(); plot.root.querySelector(".u-legend").setAttribute("aria-live", "polite"); KEYS[event.key](plot);
  });
  new ResizeObserver(() => plot.setSize({width: place.clientWidth, height: 320})).observe(place);
}
const bar = document.createElement("p");
bar.className = "zoom";
for (const [words, act] of [["zoom in", () => zoom(0.5)], ["zoom out", () => zoom(2)], ["all steps", () => show(...all)]]) {
  const button = document.createElement("button");
  button.type = "button"; button.textContent = words; button.addEventListener("click", act); bar.append(button);
}
bar.append(" Drag over the curves to zoom into all of them. Keys, with a figure in focus: left and right move the cursor, + and − zoom, 0 shows all.");
document.getElementById(found[0].key).before(bar);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => made.forEach(plot => plot.redraw(false)));
})();
