// Frames and videos of clips. Each lies in a script of its own that is run when it is wanted: a page at a file://
// address may fetch nothing, and pixels of pictures beside it would be closed to it.
"use strict";
{
  const waiting = new Map(); // what a script is to hand over -> the function that takes it
  wanReport.deliver = (name, text) => {
    waiting.get(name)?.(text);
    waiting.delete(name);
  };

  const handover = (name, file) => new Promise((resolve, reject) => {
    const script = wanReport.make("script", { src: `report_files/clips/${file}` });
    waiting.set(name, text => { script.remove(); resolve(text); });
    script.onerror = () => { script.remove(); waiting.delete(name); reject(new Error(`${file} is missing`)); };
    document.head.append(script);
  });

  const toBlob = (text, type) => {
    const bytes = Uint8Array.from(atob(text), character => character.charCodeAt(0));
    return new Blob([bytes], { type });
  };

  // --- frames: decoded ones are kept up to a budget, the longest unused go first ---
  const BUDGET = 256e6; // bytes
  const frames = new Map(), pending = new Map();
  let kept = 0;
  const keep = (name, bitmap) => {
    frames.set(name, bitmap);
    kept += 4 * bitmap.width * bitmap.height;
    for (const [oldest, old] of frames) {
      if (kept <= BUDGET || frames.size <= 8) break;
      frames.delete(oldest);
      kept -= 4 * old.width * old.height;
      old.close?.();
    }
  };

  const load = async (clip, number) => {
    const text = await handover(`${clip.key}/${number}`, `${clip.key}/${String(number).padStart(5, "0")}.js`);
    // Colour values as stored: a colour profile must not change what figures were computed from.
    return createImageBitmap(toBlob(text, "image/png"), { colorSpaceConversion: "none" });
  };

  // The clip's last frame stands when others are longer.
  const clamp = (clip, number) => Math.min(number, clip.num_frames - 1);

  wanReport.frames = {
    // The decoded frame, or null while it is on its way; `arrived` is called when it is there.
    peek(clip, number, arrived = () => {}) {
      const frame = clamp(clip, number), name = `${clip.key}/${frame}`, found = frames.get(name);
      if (found) {
        frames.delete(name);
        frames.set(name, found); // used last
        return found;
      }
      if (!pending.has(name)) {
        const job = load(clip, frame).then(bitmap => keep(name, bitmap)).catch(error => wanReport.say(`${clip.label}, frame ${frame}: ${error.message}`));
        pending.set(name, job.finally(() => pending.delete(name)));
      }
      pending.get(name).then(arrived);
      return null;
    },
    get: (clip, number) => new Promise(resolve => {
      const attempt = () => {
        const frame = wanReport.frames.peek(clip, number, attempt);
        if (frame) resolve(frame);
      };
      attempt();
    }),
  };

  // --- videos: only where the browser shows that it plays alpha ---
  const open = async (name, file) => {
    const video = wanReport.make("video", { muted: true, playsinline: true, preload: "auto" });
    video.muted = true;
    video.src = URL.createObjectURL(toBlob(await handover(name, file), "video/webm"));
    await new Promise((resolve, reject) => {
      video.onloadeddata = resolve;
      video.onerror = () => reject(new Error("not a video that this browser plays"));
      setTimeout(() => reject(new Error("the video does not open")), 10000);
    });
    return video;
  };

  let verdict = null;
  const playsAlpha = () => {
    verdict ??= (async () => {
      const video = await open("probe/video", "probe/video.js");
      const { videoWidth: width, videoHeight: height } = video;
      const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
      const alpha = x => context.getImageData(x, height / 2, 1, 1).data[3];
      // A browser may draw nothing for a while after `loadeddata`, which looks like a clear frame: the opaque right
      // half tells when the frame has been drawn.
      for (const late = performance.now() + 10000; performance.now() < late;) {
        context.drawImage(video, 0, 0);
        if (alpha(width - 2) > 192) return alpha(1) < 64;
        await new Promise(resolve => setTimeout(resolve, 50));
      }
      return false;
    })().catch(() => false);
    return verdict;
  };

  const videos = new Map();
  wanReport.videos = {
    playsAlpha,
    // The clip's video, or null where frames have to do.
    async get(clip) {
      if (!clip.has_video || !(await playsAlpha())) return null;
      if (!videos.has(clip.key)) videos.set(clip.key, open(`${clip.key}/video`, `${clip.key}/video.js`).catch(() => null));
      return videos.get(clip.key);
    },
  };
}
