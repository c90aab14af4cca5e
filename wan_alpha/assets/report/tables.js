// Tables that sort by any column: the first click brings what is worst to the top.
"use strict";
{
  const { make } = wanReport;
  // Decimals: of a column together, so that they line up, or of each value where figures of several kinds stand there.
  const enough = largest => largest >= 100 ? 1 : largest > 1 ? 2 : 4;
  const decimals = (column, values) => {
    const numbers = values.filter(value => typeof value === "number");
    if (numbers.every(Number.isInteger)) return () => 0;
    const common = enough(Math.max(...numbers.map(Math.abs)));
    return column.kind === "mixed" ? value => enough(Math.abs(value)) : () => common;
  };
  const show = (value, places) => value === null ? "–" : typeof value === "number" ? value.toFixed(places(value)) : String(value);
  const size = value => value === "∞" ? Infinity : typeof value === "number" ? value : NaN;

  // Missing values last in either direction.
  const compare = (a, b, isText, direction) => {
    if (isText) return direction * String(a ?? "").localeCompare(String(b ?? ""), undefined, { numeric: true });
    const [x, y] = [size(a), size(b)];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
    return x === y ? 0 : direction * (x < y ? -1 : 1);
  };

  const build = data => {
    const body = make("tbody"), heads = [], places = data.columns.map((column, index) => decimals(column, data.rows.map(row => row[index])));
    const fill = rows => body.replaceChildren(...rows.map(row => make("tr", {}, ...row.map((value, index) => {
      const isText = data.columns[index].kind === "text", mark = String(value).startsWith("✗") ? "missed" : isText ? "" : "number";
      return make(index === 0 ? "th" : "td", { class: mark || null, scope: index === 0 ? "row" : null }, show(value, places[index]));
    }))));
    let sorted = null, direction = 1;
    const sort = index => {
      const kind = data.columns[index].kind;
      direction = sorted === index ? -direction : kind === "low" ? -1 : 1;
      sorted = index;
      fill([...data.rows].sort((a, b) => compare(a[index], b[index], kind === "text", direction)));
      heads.forEach((head, at) => at === index ? head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending") : head.removeAttribute("aria-sort"));
      wanReport.say(`sorted by ${data.columns[index].name || "result"}, ${direction > 0 ? "smallest" : "largest"} first`);
    };
    data.columns.forEach((column, index) => {
      const hint = { low: " ↓ is good", high: " ↑ is good" }[column.kind] ?? "";
      const button = make("button", { type: "button", onclick: () => sort(index) }, column.name || "result");
      heads.push(make("th", { scope: "col", class: column.kind === "text" ? null : "number" }, button, make("small", {}, `${column.unit}${hint}`)));
    });
    fill(data.rows);
    const table = make("table", {}, make("caption", {}, data.title), make("thead", {}, make("tr", {}, ...heads)), body);
    return make("div", {}, make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": data.title }, table), data.note ? make("p", {}, data.note) : null);
  };

  wanReport.parts.push(() => {
    if (wanReport.data.tables.length === 0) return;
    wanReport.open("tables", "Figures");
    document.getElementById("tables").append(...wanReport.data.tables.map(build));
  });
}
