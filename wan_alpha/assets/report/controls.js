// The bars above the players, and the keys that do the same.
"use strict";
{
  const { make, state, button } = wanReport;
  const VIEWS = ["picture", "alpha", "difference", "alpha difference"];
  const GAINS = [[1, "255"], [4, "64"], [16, "16"]]; // times; the level of 255 that is brightest then
  const KEYS = [
    ["space", "play or stop"], ["← →", "one frame back or on"], ["shift ← →", "ten frames"], ["home end", "first or last frame"],
    ["1 2 3 4", "picture, alpha, difference, difference of alpha"], ["b", "next background"], ["+ − 0", "zoom in, out, whole frame"],
    ["i j k l", "move the enlarged window"],
  ];

  const setView = view => {
    if (view.endsWith("difference") && state.compare === null) return wanReport.say("nothing to compare with: no reference, and one clip alone");
    state.view = view;
  };

  const choice = (label, options, value, choose) => {
    const select = make("select", { "aria-label": label });
    for (const [key, text] of options) select.append(make("option", { value: key }, text));
    select.onchange = () => { choose(select.value); wanReport.changed(); };
    wanReport.listeners.push(() => { select.value = String(value()); });
    return make("label", { class: "pick" }, `${label} `, select);
  };

  const transport = () => {
    const { timeline } = wanReport;
    const slider = make("input", { type: "range", min: 0, value: 0, step: 1, "aria-label": "frame" }), readout = make("output");
    slider.oninput = () => { timeline.go(Number(slider.value)); wanReport.changed(); };
    timeline.show = () => {
      const last = timeline.length() - 1;
      slider.max = String(last);
      slider.value = String(state.frame);
      readout.textContent = `frame ${state.frame + 1} of ${last + 1}`;
    };
    wanReport.listeners.push(timeline.show);
    const speed = choice("speed", [[1, "1×"], [0.5, "½×"], [0.25, "¼×"]], () => state.speed, value => timeline.speed(Number(value)));
    document.getElementById("transport").append(
      button("play", timeline.toggle, () => state.playing, { id: "play" }),
      button("◀", () => timeline.step(-1), null, { "aria-label": "previous frame", id: "back" }),
      button("▶", () => timeline.step(1), null, { "aria-label": "next frame", id: "next" }),
      slider, readout, speed,
    );
  };

  const views = () => {
    const bar = make("div", { class: "set", role: "group", "aria-label": "view" });
    for (const view of VIEWS) {
      const node = button(view, () => setView(view), () => state.view === view, { "data-view": view });
      node.disabled = view.endsWith("difference") && state.compare === null;
      bar.append(node);
    }
    return bar;
  };

  const differences = () => {
    const targets = [], names = wanReport.data.runs, groups = wanReport.data.groups;
    if (groups.some(group => group.clips.some(clip => clip.reference))) targets.push(["reference", "the reference"]);
    targets.push(["first", "the first of each row"]);
    if (names.length > 1) names.forEach((name, index) => targets.push([index, name]));
    const bar = make("div", { class: "set difference", role: "group", "aria-label": "difference" });
    const choose = value => { state.compare = ["reference", "first"].includes(value) ? value : Number(value); };
    bar.append(choice("difference to", targets, () => state.compare, choose));
    bar.append(choice("brightest at", GAINS.map(([gain, level]) => [gain, `${level} of 255`]), () => state.gain, value => { state.gain = Number(value); }));
    bar.append(make("span", { class: "legend" }, "0", wanReport.views.legend(), "more"));
    wanReport.listeners.push(() => { bar.hidden = !wanReport.views.isDifference(); });
    return bar;
  };

  const zooming = () => {
    const { zoom } = wanReport, shown = make("output", { class: "scale" });
    wanReport.listeners.push(() => { shown.textContent = `${zoom.scale.toFixed(zoom.scale < 10 ? 1 : 0)}×`; });
    return make("div", { class: "set", role: "group", "aria-label": "zoom" },
      button("−", () => zoom.by(1 / 1.5), null, { "aria-label": "zoom out" }), shown,
      button("+", () => zoom.by(1.5), null, { "aria-label": "zoom in" }), button("whole", zoom.reset, null, { "aria-label": "whole frame" }));
  };

  const filters = () => {
    const bar = make("div", { class: "set", role: "group", "aria-label": "what is shown" }), { groups, runs } = wanReport.data;
    if (groups.length > 1) {
      const options = [["", "all"], ...groups.map((group, index) => [index, group.title.length > 60 ? `${group.title.slice(0, 59)}…` : group.title])];
      bar.append(choice("clip", options, () => state.group ?? "", value => { state.group = value === "" ? null : Number(value); }));
    }
    const found = new Set(groups.flatMap(group => group.clips.map(clip => clip.run)));
    const label = run => run === -1 ? "reference" : runs[run];
    if (found.size > 1) {
      for (const run of [...found].sort((a, b) => a - b)) {
        const flip = () => { if (!state.hidden.delete(run)) state.hidden.add(run); };
        bar.append(button(label(run), flip, () => !state.hidden.has(run), { "data-run": run }));
      }
    }
    return bar.children.length ? bar : null;
  };

  const keys = () => make("details", { class: "keys" }, make("summary", {}, "keys, mouse, touch"),
    make("dl", {}, ...KEYS.flatMap(([key, does]) => [make("dt", {}, key), make("dd", {}, does)]),
      make("dt", {}, "double click, ctrl + wheel, pinch"), make("dd", {}, "zoom in all players"), make("dt", {}, "drag"), make("dd", {}, "move what is enlarged"),
      make("dt", {}, "drop a picture"), make("dd", {}, "lay it under the clips")));

  const act = event => {
    const { timeline, zoom, backgrounds } = wanReport, far = event.shiftKey ? 10 : 1;
    const acts = {
      " ": timeline.toggle, ArrowRight: () => timeline.step(far), ArrowLeft: () => timeline.step(-far),
      Home: () => timeline.go(0), End: () => timeline.go(timeline.length() - 1), b: backgrounds.next,
      "+": () => zoom.by(1.5), "=": () => zoom.by(1.5), "-": () => zoom.by(1 / 1.5), 0: zoom.reset,
      i: () => zoom.pan(0, -0.1), k: () => zoom.pan(0, 0.1), j: () => zoom.pan(-0.1, 0), l: () => zoom.pan(0.1, 0),
    };
    VIEWS.forEach((view, index) => { acts[index + 1] = () => setView(view); });
    return acts[event.key];
  };

  addEventListener("keydown", event => {
    const target = event.target;
    if (event.ctrlKey || event.metaKey || event.altKey || target.closest?.("input, select, textarea, .scroll, .chart")) return;
    if (event.key === " " && target.closest?.("button, summary, a")) return;
    if (wanReport.data.groups.length === 0) return;
    const does = act(event);
    if (!does) return;
    event.preventDefault();
    does();
    wanReport.changed();
  });

  wanReport.parts.push(() => {
    if (wanReport.data.groups.length === 0) return;
    transport();
    document.getElementById("options").append(...[views(), wanReport.backgrounds.controls(), differences(), zooming(), filters(), keys()].filter(Boolean));
  });
}
