// Curves over training steps, one line a run, told apart by colour and by dashes.
"use strict";
{
  const { make } = wanReport;
  const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#7a5c00"], DASHES = ["", "6 3", "2 3", "9 3 2 3", "12 4", "4 2"];
  const WIDTH = 460, HEIGHT = 230, LEFT = 58, RIGHT = 10, TOP = 12, BOTTOM = 28;
  const svg = (name, attributes, text = "") => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.textContent = text;
    return node;
  };
  const short = value => value === 0 ? "0" : Math.abs(value) >= 1e4 || Math.abs(value) < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(3)));

  // What falls by powers of ten is drawn on a logarithmic scale; decibels and shares are not.
  const scaleOf = values => {
    const low = Math.min(...values), high = Math.max(...values), isLog = low > 0 && high / low > 8;
    const [from, to] = isLog ? [Math.log(low), Math.log(high)] : [low, high];
    const y = value => HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * ((isLog ? Math.log(value) : value) - from) / (to - from || 1);
    const ticks = [0, 1 / 3, 2 / 3, 1].map(share => from + share * (to - from)).map(value => isLog ? Math.exp(value) : value);
    return { y, ticks: to > from ? ticks : [low], isLog };
  };

  const values = chart => {
    const steps = [...new Set(chart.series.flatMap(series => series.points.map(point => point[0])))].sort((a, b) => a - b);
    const lines = chart.series.map(series => new Map(series.points));
    const head = make("tr", {}, make("th", { scope: "col" }, "step"), ...chart.series.map(series => make("th", { scope: "col" }, series.name)));
    const rows = steps.map(step => make("tr", {}, make("th", { scope: "row" }, String(step)), ...lines.map(line => make("td", {}, line.has(step) ? short(line.get(step)) : "–"))));
    return make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `values of ${chart.title}` }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
  };

  const build = chart => {
    const points = chart.series.flatMap(series => series.points), steps = points.map(point => point[0]);
    const first = Math.min(...steps), last = Math.max(...steps), { y, ticks, isLog } = scaleOf(points.map(point => point[1]));
    const x = step => LEFT + (WIDTH - LEFT - RIGHT) * (step - first) / (last - first || 1);
    const root = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${chart.title}, steps ${first} to ${last}` });
    for (const value of ticks) {
      root.append(svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(value), y2: y(value), class: "rule" }), svg("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, short(value)));
    }
    for (const step of new Set([first, last])) root.append(svg("text", { x: x(step), y: HEIGHT - 8, "text-anchor": step === first ? "start" : "end" }, `step ${step}`));
    chart.series.forEach((series, index) => {
      const color = COLORS[index % COLORS.length];
      root.append(svg("polyline", { points: series.points.map(point => `${x(point[0])},${y(point[1])}`).join(" "), stroke: color, "stroke-dasharray": DASHES[index % DASHES.length] || "none" }));
      if (series.points.length <= 30) for (const point of series.points) root.append(svg("circle", { cx: x(point[0]), cy: y(point[1]), r: 2.5, fill: color }));
    });
    const line = svg("line", { y1: TOP, y2: HEIGHT - BOTTOM, class: "cursor", visibility: "hidden" }), readout = make("small", { class: "readout" }, "\u00a0");
    root.append(line);
    let at = null;
    const point = step => {
      at = step;
      line.setAttribute("x1", x(step));
      line.setAttribute("x2", x(step));
      line.setAttribute("visibility", "visible");
      const nearest = series => series.points.reduce((best, other) => Math.abs(other[0] - step) < Math.abs(best[0] - step) ? other : best);
      readout.textContent = `step ${step}: ` + chart.series.map(series => (chart.series.length > 1 ? `${series.name} ` : "") + short(nearest(series)[1])).join(", ");
    };
    const sorted = [...new Set(steps)].sort((a, b) => a - b);
    root.addEventListener("pointermove", event => {
      const box = root.getBoundingClientRect(), wanted = first + ((event.clientX - box.left) / box.width * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT) * (last - first);
      point(sorted.reduce((best, step) => Math.abs(step - wanted) < Math.abs(best - wanted) ? step : best));
    });
    const legend = chart.series.length > 1 ? make("div", { class: "lines" }, ...chart.series.map((series, index) => {
      const sample = svg("svg", { viewBox: "0 0 30 8", class: "sample", "aria-hidden": "true" });
      sample.append(svg("polyline", { points: "0,4 30,4", stroke: COLORS[index % COLORS.length], "stroke-dasharray": DASHES[index % DASHES.length] || "none" }));
      return make("span", {}, sample, series.name);
    })) : null;
    const details = make("details", {}, make("summary", {}, "values"));
    details.addEventListener("toggle", () => { if (details.children.length === 1) details.append(values(chart)); });
    const box = make("div", { class: "chart", tabindex: "0", role: "group", "aria-label": `${chart.title}; arrow keys read values` }, make("b", {}, chart.title, isLog ? make("small", {}, " (logarithmic)") : null), root, legend, readout, details);
    box.addEventListener("keydown", event => {
      if (event.target !== box || !["ArrowLeft", "ArrowRight"].includes(event.key)) return;
      event.preventDefault();
      const index = at === null ? 0 : sorted.indexOf(at) + (event.key === "ArrowRight" ? 1 : -1);
      point(sorted[Math.min(sorted.length - 1, Math.max(0, index))]);
      wanReport.say(readout.textContent);
    });
    return box;
  };

  wanReport.parts.push(() => {
    const charts = wanReport.data.charts, root = document.getElementById("charts");
    if (charts.length === 0) return;
    wanReport.open("charts", "Curves");
    root.append(make("div", { class: "grid" }, ...charts.filter(chart => !chart.side).map(build)));
    const side = charts.filter(chart => chart.side);
    if (side.length) root.append(make("details", {}, make("summary", {}, "terms of the loss, learning rate, gradient norm"), make("div", { class: "grid" }, ...side.map(build))));
  });
}
