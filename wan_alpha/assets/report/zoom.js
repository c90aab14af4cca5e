// One window on all clips: what is enlarged in one player is enlarged in every other, whatever their sizes.
"use strict";
{
  const MOST = 32;
  const zoom = { scale: 1, x: 0.5, y: 0.5 }; // times, and the point in the middle as shares of width and height

  const settle = () => {
    zoom.scale = Math.min(MOST, Math.max(1, zoom.scale));
    const half = 0.5 / zoom.scale;
    zoom.x = Math.min(1 - half, Math.max(half, zoom.x));
    zoom.y = Math.min(1 - half, Math.max(half, zoom.y));
    document.body.classList.toggle("zoomed", zoom.scale > 1);
    wanReport.changed();
  };
  // Enlarge and keep the point (u, v) of the player, shares from its corner, where it is.
  const by = (factor, u = 0.5, v = 0.5) => {
    const before = zoom.scale;
    zoom.scale = Math.min(MOST, Math.max(1, before * factor));
    zoom.x += (u - 0.5) * (1 / before - 1 / zoom.scale);
    zoom.y += (v - 0.5) * (1 / before - 1 / zoom.scale);
    settle();
  };
  const pan = (du, dv) => {
    zoom.x += du / zoom.scale;
    zoom.y += dv / zoom.scale;
    settle();
  };
  const reset = () => {
    Object.assign(zoom, { scale: 1, x: 0.5, y: 0.5 });
    settle();
  };

  // Set a context so that the clip's pixels fall where this window shows them.
  const place = (context, clip) => {
    const { width, height } = context.canvas, w = width / clip.width * zoom.scale, h = height / clip.height * zoom.scale;
    context.setTransform(w, 0, 0, h, width / 2 - zoom.x * clip.width * w, height / 2 - zoom.y * clip.height * h);
    context.imageSmoothingEnabled = w < 3; // beyond that, single pixels are what one looks for
  };

  const listen = canvas => {
    const pointers = new Map();
    const share = event => {
      const box = canvas.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    };
    // A plain wheel scrolls the page, as everywhere else.
    canvas.addEventListener("wheel", event => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      by(Math.exp(-event.deltaY / 300), ...share(event));
    }, { passive: false });
    canvas.addEventListener("dblclick", event => by(2, ...share(event)));
    canvas.addEventListener("pointerdown", event => {
      pointers.set(event.pointerId, share(event));
      if (zoom.scale > 1) canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", event => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      const now = share(event), others = [...pointers].filter(([id]) => id !== event.pointerId);
      pointers.set(event.pointerId, now);
      if (others.length === 0) {
        if (zoom.scale > 1) pan(before[0] - now[0], before[1] - now[1]);
        return;
      }
      const [u, v] = others[0][1], length = point => Math.hypot(point[0] - u, point[1] - v);
      if (length(before) > 0) by(length(now) / length(before), (now[0] + u) / 2, (now[1] + v) / 2);
    });
    for (const end of ["pointerup", "pointercancel", "pointerleave"]) canvas.addEventListener(end, event => pointers.delete(event.pointerId));
  };

  wanReport.zoom = { by, pan, reset, place, listen, get scale() { return zoom.scale; } };
}
