// The page's one name. Every other file adds a part to it; start() is called when all are there.
"use strict";
const wanReport = {
  parts: [],
  // What the viewer has chosen; parts call changed() after writing to it.
  state: { frame: 0, playing: false, speed: 1, view: "picture", background: "checker", gain: 4, compare: null, group: null, hidden: new Set() },
  listeners: [],

  make(name, attributes = {}, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (value !== null && value !== false) node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.filter(child => child !== null));
    return node;
  },

  // One button of a set or a switch; `pressed` is asked again after every change.
  button(label, act, pressed = null, attributes = {}) {
    const node = wanReport.make("button", { type: "button", ...attributes, onclick: () => { act(); wanReport.changed(); } }, label);
    if (pressed) wanReport.listeners.push(() => node.setAttribute("aria-pressed", String(pressed())));
    return node;
  },

  changed() {
    for (const listener of wanReport.listeners) listener();
  },

  say(text) {
    document.getElementById("status").textContent = text;
  },

  // Show a section that has something in it, and name it among the contents.
  open(id, label) {
    const section = document.getElementById(`section-${id}`);
    section.hidden = false;
    document.getElementById("contents").append(wanReport.make("a", { href: `#section-${id}` }, label));
  },

  start() {
    document.getElementById("summary").textContent = wanReport.data.summary;
    for (const part of wanReport.parts) part();
    wanReport.changed();
    document.documentElement.dataset.ready = "true";
  },
};
