// The players: one canvas a clip, in groups of clips that show the same thing.
"use strict";
{
  const { make, state } = wanReport;
  const MANY = 12; // more players than this are shown one group at a time
  const players = [];

  const percent = share => share > 0 && share < 0.005 ? "<1%" : `${Math.round(100 * share)}%`;
  const describe = clip => {
    const { clear, semi_transparent, opaque } = clip.coverage;
    const shares = `${percent(clear)} clear, ${percent(semi_transparent)} semi-transparent, ${percent(opaque)} opaque`;
    return `${shares}; ${clip.width}×${clip.height}, ${clip.num_frames} frame${clip.num_frames === 1 ? "" : "s"}`;
  };

  const build = (group, index, clip, title) => {
    const canvas = make("canvas", { tabindex: "0", role: "img", "aria-label": `${group.title}, ${clip.label}`, style: `aspect-ratio:${clip.width}/${clip.height}`, "data-clip": clip.key });
    const { clear, semi_transparent, opaque } = clip.coverage;
    const shares = make("div", { class: "shares", "aria-hidden": "true" }, ...[clear, semi_transparent, opaque].map(share => make("i", { style: `width:${100 * share}%` })));
    const note = make("small", { class: "note" });
    const caption = make("figcaption", {}, title ? make("span", { class: "title" }, title) : null, make("b", {}, clip.label), shares, make("small", {}, describe(clip)), note);
    const figure = make("figure", { "data-clip": clip.key }, canvas, caption);
    const player = { group, index, clip, canvas, figure, note, video: null, onScreen: true };
    wanReport.zoom.listen(canvas);
    players.push(player);
    return figure;
  };

  const isShown = player => !state.hidden.has(player.clip.run) && (state.group === null || state.group === player.index);
  const active = () => players.filter(player => isShown(player) && player.onScreen);

  // The clip that a player's differences are to, or null.
  const counterpart = player => {
    const clips = player.group.clips;
    if (state.compare === null) return null;
    const wanted = state.compare === "reference" ? clips.find(clip => clip.key === player.clip.reference) ?? clips.find(clip => clip.run === -1)
      : state.compare === "first" ? clips[0] : clips.find(clip => clip.run === state.compare);
    return wanted && wanted.key !== player.clip.key ? wanted : null;
  };

  let due = false;
  const schedule = () => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => { due = false; active().forEach(draw); });
  };

  const draw = player => {
    const { canvas, clip } = player, context = canvas.getContext("2d");
    const other = wanReport.views.isDifference() ? counterpart(player) : null;
    const playing = other === null ? wanReport.timeline.videoOf(player) : null;
    const image = playing ?? wanReport.frames.peek(clip, state.frame, schedule);
    const truth = other && wanReport.frames.peek(other, state.frame, schedule);
    if (!image || (other && !truth)) return;
    const width = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio)), height = Math.max(1, Math.round(width * clip.height / clip.width));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const place = () => wanReport.zoom.place(context, clip);
    const cover = color => {
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.fillStyle = color;
      context.fillRect(0, 0, width, height);
    };
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    let note = "";
    if (other) {
      const map = wanReport.views.map(image, truth, clip, `${state.frame} ${other.key}`);
      place();
      context.drawImage(map.canvas, 0, 0, clip.width, clip.height);
      note = `differs from ${other.label} by ${map.mean.toFixed(2)} of 255 in the mean`;
    } else if (state.view === "alpha" || state.view === "alpha difference") {
      // Only alpha is left of the picture, then white in its shape over black: alpha as grey.
      place();
      context.drawImage(image, 0, 0, clip.width, clip.height);
      context.globalCompositeOperation = "source-in";
      cover("#fff");
      context.globalCompositeOperation = "destination-over";
      cover("#000");
      context.globalCompositeOperation = "source-over";
    } else {
      wanReport.backgrounds.paint(context, clip, place);
      place();
      context.drawImage(image, 0, 0, clip.width, clip.height);
    }
    if (wanReport.views.isDifference() && !other) {
      const isMeasure = players.some(one => one.group === player.group && isShown(one) && counterpart(one)?.key === clip.key);
      note = isMeasure ? "this is what the others are compared with" : "there is nothing to compare it with";
    }
    player.note.textContent = note;
    canvas.dataset.frame = String(Math.min(state.frame, clip.num_frames - 1));
    canvas.dataset.shows = `${state.view} ${state.background}`;
    canvas.dataset.source = playing ? "video" : "frame";
  };

  const lay = () => {
    for (const player of players) player.figure.hidden = !isShown(player);
    for (const section of document.querySelectorAll(".group")) section.hidden = !section.querySelector("figure:not([hidden])");
    schedule();
  };

  wanReport.players = { all: players, active, draw, schedule, counterpart };
  wanReport.parts.push(() => {
    const groups = wanReport.data.groups, root = document.getElementById("groups");
    if (groups.length === 0) return;
    wanReport.open("clips", "Clips");
    let singles = null;
    groups.forEach((group, index) => {
      const alone = group.clips.length === 1;
      if (alone) {
        if (!singles) root.append(make("section", { class: "group" }, singles = make("div", { class: "clips" })));
        singles.append(build(group, index, group.clips[0], group.title));
        return;
      }
      const clips = make("div", { class: "clips" }, ...group.clips.map(clip => build(group, index, clip, "")));
      root.append(make("section", { class: "group", "aria-label": group.title }, make("h2", {}, group.title), clips));
    });
    if (players.length > MANY && groups.length > 1) state.group = 0;
    if (players.some(player => player.clip.reference)) state.compare = "reference";
    else if (groups.some(group => group.clips.length > 1)) state.compare = "first";
    const seen = new IntersectionObserver(entries => {
      for (const entry of entries) players.find(player => player.canvas === entry.target).onScreen = entry.isIntersecting;
      schedule();
    }, { rootMargin: "200px" });
    const sized = new ResizeObserver(schedule);
    for (const player of players) {
      seen.observe(player.canvas);
      sized.observe(player.canvas);
    }
    wanReport.listeners.push(lay);
  });
}
