// Time: one frame number for all players. While it runs, videos play along where the browser plays alpha and frames
// are shown where it does not; where it stands, every player shows the exact frame.
"use strict";
{
  const { state } = wanReport;
  const AHEAD = 6; // frames asked for before they are due
  const MOST = 2; // frames that one picture of the screen may skip
  const AHEAD_OF_CLOCK = 2, BEHIND_CLOCK = 8; // frames between a video and the clock that a seek bridges
  const PATIENCE = 8000; // milliseconds until a video that stands still is given up
  let position = 0, before = 0; // the clock in frames, and when it was last read

  const length = () => Math.max(1, ...wanReport.players.active().map(player => player.clip.num_frames));
  const rate = () => state.speed * Math.max(1, ...wanReport.players.active().map(player => player.clip.fps));
  const usesVideo = player => player.video !== null && player.clip.num_frames > AHEAD_OF_CLOCK + 1 && !(wanReport.views.isDifference() && wanReport.players.counterpart(player));

  const halt = () => {
    for (const player of wanReport.players.all) player.video?.pause();
  };

  // Keep a video with the clock: seek where it is far away, let it wait where it is ahead. Returns whether the clock has
  // to wait for it: a slow machine plays slowly, and still in step.
  const follow = (player, now) => {
    const { video, clip } = player;
    if (position >= clip.num_frames - 0.5) {
      video.pause();
      return false;
    }
    const at = video.currentTime * clip.fps, gap = at - position;
    if (at !== player.at) Object.assign(player, { at, moved: now });
    if (now - player.moved > PATIENCE && !video.paused) {
      player.video = null; // it does not get anywhere: frames do
      return false;
    }
    if (video.seeking) return true;
    video.playbackRate = Math.min(16, Math.max(0.0625, rate() / clip.fps));
    if (gap > AHEAD_OF_CLOCK || gap < -BEHIND_CLOCK) {
      video.currentTime = (position + 0.25) / clip.fps;
      return true;
    }
    if (gap > 1) video.pause();
    else if (video.paused) {
      player.moved = now;
      video.play().catch(() => { player.video = null; });
    }
    return gap < -1;
  };

  const tick = now => {
    if (!state.playing) return;
    requestAnimationFrame(tick);
    const players = wanReport.players.active(), count = length(), stills = players.filter(player => !usesVideo(player));
    const passed = Math.max(0, now - before) / 1000 * rate(), next = (position + Math.min(MOST, passed)) % count;
    before = now;
    for (let ahead = 0; ahead <= AHEAD; ahead++) for (const { clip } of stills) wanReport.frames.peek(clip, (Math.floor(next) + ahead) % count);
    // In step: nobody goes on before everybody can.
    const late = players.filter(usesVideo).map(player => follow(player, now)).includes(true);
    if (!late && stills.every(({ clip }) => wanReport.frames.peek(clip, Math.floor(next)))) position = next;
    const frame = Math.floor(position);
    state.frame = frame;
    players.forEach(wanReport.players.draw);
    wanReport.timeline.show();
  };

  const play = () => {
    if (state.playing) return;
    state.playing = true;
    position = state.frame;
    before = performance.now();
    for (const player of wanReport.players.all) wanReport.videos.get(player.clip).then(video => { player.video = video; });
    requestAnimationFrame(tick);
  };

  const stop = () => {
    state.playing = false;
    halt();
    wanReport.players.schedule();
  };

  const go = frame => {
    stop();
    const count = length();
    state.frame = ((frame % count) + count) % count;
    wanReport.timeline.show();
  };

  wanReport.timeline = {
    length, go, play, stop,
    toggle: () => state.playing ? stop() : play(),
    step: by => go(state.frame + by),
    speed(value) { state.speed = value; },
    // The element to draw of a playing clip, or null where its frame is to be drawn.
    videoOf: player => state.playing && usesVideo(player) && player.video.readyState >= 2 && !player.video.seeking ? player.video : null,
    show() {},
  };
}
