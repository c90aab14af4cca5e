// What lies under the clips: a checkerboard, a colour, or a picture that the viewer drops on the page.
"use strict";
{
  const { make, state } = wanReport;
  const COLORS = { black: "#000000", white: "#ffffff", grey: "#808080", green: "#00b140", magenta: "#ff00ff" };
  const NAMES = ["checker", ...Object.keys(COLORS)];
  let picture = null;

  const board = make("canvas", { width: 24, height: 24 });
  {
    const context = board.getContext("2d");
    for (const [x, y, shade] of [[0, 0, "#ccc"], [12, 0, "#999"], [0, 12, "#999"], [12, 12, "#ccc"]]) {
      context.fillStyle = shade;
      context.fillRect(x, y, 12, 12);
    }
  }

  // Paint the background; `place` sets the context to the clip's own pixels, where a picture lies and zooms with it.
  const paint = (context, clip, place) => {
    context.setTransform(1, 0, 0, 1, 0, 0);
    const { width, height } = context.canvas;
    if (state.background === "picture" && picture) {
      place();
      const scale = Math.max(clip.width / picture.width, clip.height / picture.height);
      const [w, h] = [picture.width * scale, picture.height * scale];
      context.imageSmoothingEnabled = true;
      context.drawImage(picture, (clip.width - w) / 2, (clip.height - h) / 2, w, h);
      return;
    }
    context.fillStyle = state.background === "checker" ? context.createPattern(board, "repeat") : COLORS[state.background] ?? state.background;
    context.fillRect(0, 0, width, height);
  };

  const take = async file => {
    try {
      picture = await createImageBitmap(file);
    } catch {
      wanReport.say(`${file.name}: not a picture that this browser reads`);
      return;
    }
    state.background = "picture";
    wanReport.say(`background: ${file.name}`);
    wanReport.changed();
  };

  const next = () => {
    const names = picture ? [...NAMES, "picture"] : NAMES;
    state.background = names[(names.indexOf(state.background) + 1) % names.length];
    wanReport.say(`background: ${state.background}`);
  };

  const controls = () => {
    const bar = make("div", { class: "set", role: "group", "aria-label": "background" });
    for (const name of NAMES) {
      const swatch = make("i", { class: "swatch", "aria-hidden": "true", style: COLORS[name] ? `background:${COLORS[name]}` : "" });
      bar.append(wanReport.button("", () => { state.background = name; }, () => state.background === name, { "data-background": name }));
      bar.lastChild.append(swatch, name);
    }
    const colour = make("input", { type: "color", value: "#3366cc", "aria-label": "background of a picked colour" });
    colour.oninput = () => { state.background = colour.value; wanReport.changed(); };
    bar.append(make("label", { class: "pick" }, "colour ", colour));
    const file = make("input", { type: "file", accept: "image/*", class: "file", "aria-label": "background picture" });
    file.onchange = () => { if (file.files[0]) take(file.files[0]); };
    bar.append(make("label", { class: "pick", "data-background": "picture" }, "picture … ", file));
    return bar;
  };

  const holdsFile = event => event.dataTransfer && [...event.dataTransfer.types].includes("Files");
  addEventListener("dragover", event => {
    if (!holdsFile(event)) return;
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  addEventListener("dragleave", event => { if (event.relatedTarget === null) document.body.classList.remove("dropping"); });
  addEventListener("drop", event => {
    if (!holdsFile(event)) return;
    event.preventDefault();
    document.body.classList.remove("dropping");
    if (event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });

  wanReport.backgrounds = { paint, next, controls };
}
