// Time: one frame number for all players. While it runs, videos play along where the browser plays alpha and frames
// are shown where it does not; where it stands, every player shows the exact frame.
"use strict";
{
  const { state } = wanReport;
  const AHEAD = 6; // frames asked for before they are due
  let base = 0, since = 0;

  const length = () => Math.max(1, ...wanReport.players.active().map(player => player.clip.num_frames));
  const rate = () => state.speed * Math.max(1, ...wanReport.players.active().map(player => player.clip.fps));
  const usesVideo = player => player.video !== null && !(wanReport.views.isDifference() && wanReport.players.counterpart(player));

  const restart = now => {
    base = state.frame;
    since = now;
  };

  const halt = () => {
    for (const player of wanReport.players.all) player.video?.pause();
  };

  // Keep a video where the clock is; small deviations are left to its own rate, a seek would stutter.
  const follow = (player, position) => {
    const { video, clip } = player;
    if (position >= clip.num_frames - 0.5) return video.pause();
    video.playbackRate = Math.min(16, Math.max(0.0625, rate() / clip.fps));
    if (video.paused) video.play().catch(() => { player.video = null; });
    if (!video.seeking && Math.abs(video.currentTime * clip.fps - position) > 1.5) video.currentTime = position / clip.fps;
  };

  const tick = now => {
    if (!state.playing) return;
    requestAnimationFrame(tick);
    // The screen's clock may be a little behind the one that play() read.
    const elapsed = Math.max(0, now - since) / 1000, count = length(), position = (base + elapsed * rate()) % count, frame = Math.floor(position);
    const players = wanReport.players.active(), stills = players.filter(player => !usesVideo(player));
    for (let ahead = 0; ahead <= AHEAD; ahead++) for (const { clip } of stills) wanReport.frames.peek(clip, (frame + ahead) % count);
    // In step: nobody goes on before everybody can.
    if (frame !== state.frame && stills.some(({ clip }) => !wanReport.frames.peek(clip, frame))) return restart(now);
    for (const player of players) if (usesVideo(player)) follow(player, position);
    state.frame = frame;
    players.forEach(wanReport.players.draw);
    wanReport.timeline.show();
  };

  const play = () => {
    if (state.playing) return;
    state.playing = true;
    restart(performance.now());
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
    speed(value) {
      state.speed = value;
      restart(performance.now());
    },
    // The element to draw of a playing clip, or null where its frame is to be drawn.
    videoOf: player => state.playing && usesVideo(player) && player.video.readyState >= 2 && !player.video.seeking ? player.video : null,
    show() {},
  };
}
