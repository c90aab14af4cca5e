// What is drawn of a clip: its picture over the background, its alpha, or how far it is from another clip.
"use strict";
{
  const { state } = wanReport;
  // Dark to light and blue to yellow, so that no kind of colour blindness folds two values into one.
  const ANCHORS = [[0, 0, 0], [11, 42, 99], [0, 114, 178], [230, 159, 0], [255, 245, 210]];
  const ramp = new Uint8ClampedArray(256 * 3);
  for (let level = 0; level < 256; level++) {
    const at = level / 255 * (ANCHORS.length - 1), low = Math.min(Math.floor(at), ANCHORS.length - 2), share = at - low;
    for (let c = 0; c < 3; c++) ramp[3 * level + c] = ANCHORS[low][c] + share * (ANCHORS[low + 1][c] - ANCHORS[low][c]);
  }

  // Pixels of a frame at a size, straight RGBA.
  const pixels = (image, width, height) => {
    const canvas = new OffscreenCanvas(width, height), context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0, width, height);
    return context.getImageData(0, 0, width, height).data;
  };

  // Levels of 255 by which two frames differ, a value a pixel.
  //   alpha:      |a - b|
  //   difference: the most that the composite changes over any background. The change p - q - (a - b) B (p, q colour
  //               times alpha) is linear in the background B, so black and white are its extremes.
  const differenceLevels = (one, other, alphaOnly) => {
    const levels = new Float32Array(one.length / 4);
    for (let i = 0, n = 0; i < one.length; i += 4, n++) {
      const a = one[i + 3], b = other[i + 3];
      let most = Math.abs(a - b);
      if (!alphaOnly) {
        most = 0;
        for (let c = 0; c < 3; c++) {
          const change = (one[i + c] * a - other[i + c] * b) / 255;
          most = Math.max(most, Math.abs(change), Math.abs(change - (a - b)));
        }
      }
      levels[n] = most;
    }
    return levels;
  };

  const heatMap = (image, other, clip, alphaOnly) => {
    const { width, height } = clip;
    const levels = differenceLevels(pixels(image, width, height), pixels(other, width, height), alphaOnly);
    const canvas = new OffscreenCanvas(width, height), context = canvas.getContext("2d");
    const painted = context.createImageData(width, height);
    let sum = 0;
    for (let n = 0; n < levels.length; n++) {
      sum += levels[n];
      const level = Math.min(255, Math.round(levels[n] * state.gain));
      for (let c = 0; c < 3; c++) painted.data[4 * n + c] = ramp[3 * level + c];
      painted.data[4 * n + 3] = 255;
    }
    context.putImageData(painted, 0, 0);
    return { canvas, mean: sum / levels.length };
  };

  // The last map of each clip: zooming and panning need no new one.
  const maps = new Map();
  const map = (image, other, clip, name) => {
    const wanted = `${name} ${state.view} ${state.gain}`;
    if (maps.get(clip.key)?.name !== wanted) maps.set(clip.key, { name: wanted, ...heatMap(image, other, clip, state.view === "alpha difference") });
    return maps.get(clip.key);
  };

  const legend = () => {
    const canvas = wanReport.make("canvas", { width: 256, height: 1, class: "ramp", role: "img", "aria-label": "black: no difference; blue, orange, pale yellow: larger ones" });
    const context = canvas.getContext("2d"), row = context.createImageData(256, 1);
    for (let level = 0; level < 256; level++) row.data.set([ramp[3 * level], ramp[3 * level + 1], ramp[3 * level + 2], 255], 4 * level);
    context.putImageData(row, 0, 0);
    return canvas;
  };

  wanReport.views = { map, legend, isDifference: () => state.view.endsWith("difference"), differenceLevels };
}
