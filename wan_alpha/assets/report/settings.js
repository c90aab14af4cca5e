// Recipes and environments of all runs side by side.
"use strict";
{
  const { make } = wanReport;
  const build = data => {
    const several = data.headings.length > 1;
    const rows = data.rows.map(row => make("tr", { class: several && row.differs ? "differs" : null },
      make("th", { scope: "row" }, several && row.differs ? `≠ ${row.name}` : row.name), ...row.values.map(value => make("td", {}, value))));
    const table = make("table", {}, make("thead", {}, make("tr", {}, make("th", { scope: "col" }, ""), ...data.headings.map(heading => make("th", { scope: "col" }, heading)))), make("tbody", {}, ...rows));
    const details = make("details", {}, make("summary", {}, data.title));
    if (several) {
      const only = make("input", { type: "checkbox" });
      only.onchange = () => table.classList.toggle("only-differing", only.checked);
      details.append(make("label", { class: "pick" }, only, " only what differs"));
    }
    details.append(make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": data.title }, table));
    return details;
  };

  wanReport.parts.push(() => {
    const { settings } = wanReport.data;
    if (settings.length === 0) return;
    wanReport.open("settings", "Recipes and environment");
    document.getElementById("settings").append(...settings.map(build));
  });
}
