"use strict";
// One utterance on a time axis: waveform, spectrogram, units, words and segment borders, with a playhead.

const WAVE = 56, SPECTRUM = 96, UNITS = 26, TICKS = 18, GAP = 6;

class Timeline {
  /** `borders`: seconds at which segments end; `name`: name for screen readers. */
  constructor(detail, sound, borders, name) {
    this.detail = detail;
    this.sound = sound;
    this.borders = borders || [];
    this.canvas = el("canvas", { role: "img", "aria-label": this.description(name) });
    this.words = (detail.words || []).map(([word, start, end, interpolated]) => el("button", {
      type: "button", class: interpolated ? "word interpolated" : "word", title: `${word}: ${start} to ${end} s${interpolated ? ", interpolated" : ""}`,
      onclick: () => this.seek(start),
    }, word));
    this.head = el("div", { class: "head", "aria-hidden": "true" });
    this.lane = el("div", { class: "words" }, ...this.words);
    this.axis = el("div", { class: "axis" }, this.canvas, this.words.length ? this.lane : null, this.head);
    this.scroller = el("div", { class: "scroller", tabindex: "0", role: "group", "aria-label": `time axis of ${name}` }, this.axis);
    this.readout = el("p", { class: "readout" }, "\u00a0");
    if (sound) {
      this.url = URL.createObjectURL(new Blob([bytesOf(sound.flac)], { type: "audio/flac" }));
      this.audio = el("audio", { controls: true, preload: "auto", src: this.url, "aria-label": `sound of ${name}` });
      for (const event of ["play", "seeked", "timeupdate", "pause"]) this.audio.addEventListener(event, () => this.follow());
    }
    this.element = el("figure", { class: "timeline" },
      this.audio || el("p", { class: "note" }, "No sound here: the page has sound only for a sample of rows. Run inspect with a larger --sounds, or with --serve."),
      this.scroller, this.readout);
    this.axis.addEventListener("click", (event) => {
      if (!event.target.closest("button")) this.seek((event.clientX - this.axis.getBoundingClientRect().left) / this.scale);
    });
    this.axis.addEventListener("pointermove", (event) => {
      if (!this.audio || this.audio.paused) this.describe((event.clientX - this.axis.getBoundingClientRect().left) / this.scale);
    });
  }

  description(name) {
    const units = this.detail.units ? `, ${this.detail.units.length} collapsed units` : "";
    const borders = this.borders.length ? `, segments end at ${this.borders.join(", ")} s` : "";
    return `${name}: ${this.detail.seconds.toFixed(2)} seconds${units}${borders}`;
  }

  /** Draws the canvas. Call it once the element is in the document, which determines its width. */
  draw() {
    const seconds = this.detail.seconds, room = this.scroller.clientWidth || 600;
    this.scale = Math.max(room / seconds, Math.min(110, 12000 / seconds));
    const width = Math.floor(seconds * this.scale), height = (this.sound ? WAVE + SPECTRUM + 2 * GAP : 0) + (this.detail.units ? UNITS : 0) + TICKS;
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    this.axis.style.width = `${width}px`;
    this.canvas.width = width * ratio; this.canvas.height = height * ratio;
    this.canvas.style.width = `${width}px`; this.canvas.style.height = `${height}px`;
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    let top = 0;
    if (this.sound) {
      this.wave(pen, width);
      this.spectrum(pen, WAVE + GAP, width);
      top = WAVE + SPECTRUM + 2 * GAP;
    }
    if (this.detail.units) { this.units(pen, top); top += UNITS; }
    this.ticks(pen, top, width);
    this.borders.forEach((border, place) => this.border(pen, border, place, top));
    this.detail.words?.forEach(([, start, end], place) => {
      this.words[place].style.left = `${start * this.scale}px`;
      const wide = `${Math.max(4, (end - start) * this.scale - 1)}px`;
      Object.assign(this.words[place].style, { minWidth: wide, maxWidth: wide });  // CSS removes maxWidth on hover
    });
    this.follow();
  }

  wave(pen, width) {
    const peaks = bytesOf(this.sound.peaks), most = Math.max(24, ...peaks.slice(0, 60000));
    pen.fillStyle = color("accent");
    const step = this.scale / 100;
    for (let at = 0; at < peaks.length; at++) {
      const high = Math.max(1, (peaks[at] / most) * WAVE);
      pen.fillRect(at * step, (WAVE - high) / 2, Math.max(0.6, step * 0.7), high);
    }
  }

  spectrum(pen, top, width) {
    const bytes = bytesOf(this.sound.spectrogram), bands = 64, frames = bytes.length / bands;
    if (!frames) return;
    const small = el("canvas", { width: Math.min(frames, 16000), height: bands }), ink = small.getContext("2d");
    const image = ink.createImageData(small.width, bands);
    let most = 1;
    for (const value of bytes) most = Math.max(most, value);
    for (let frame = 0; frame < small.width; frame++) {
      for (let band = 0; band < bands; band++) {
        const value = Math.max(0, (bytes[frame * bands + band] - most + 150) / 150);  // the loudest 60 dB
        image.data[4 * ((bands - 1 - band) * small.width + frame) + 3] = 255 * value ** 1.6;
      }
    }
    ink.putImageData(image, 0, 0);
    ink.globalCompositeOperation = "source-in";
    ink.fillStyle = color("text");
    ink.fillRect(0, 0, small.width, bands);
    pen.fillStyle = color("sunk");
    pen.fillRect(0, top, width, SPECTRUM);
    pen.imageSmoothingQuality = "high";
    pen.drawImage(small, 0, top, (frames * this.sound.hop * this.scale) / 16000, SPECTRUM);
  }

  units(pen, top) {
    let time = 0;
    this.starts = [];
    pen.textAlign = "center"; pen.textBaseline = "middle"; pen.font = "10px ui-monospace, monospace";
    this.detail.units.forEach((unit, run) => {
      const x = time * this.scale, wide = this.detail.durations[run] * this.detail.hop * this.scale;
      this.starts.push(time);
      pen.fillStyle = unitColor(unit);
      pen.fillRect(x, top, Math.max(0.5, wide - 0.5), UNITS - 4);
      if (wide > 17) { pen.fillStyle = color("text"); pen.fillText(unit, x + wide / 2, top + (UNITS - 4) / 2 + 0.5); }
      time += this.detail.durations[run] * this.detail.hop;
    });
  }

  ticks(pen, top, width) {
    const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300].find((value) => value * this.scale > 56) || 600;
    pen.fillStyle = color("quiet"); pen.textAlign = "left"; pen.textBaseline = "alphabetic"; pen.font = "11px system-ui, sans-serif";
    for (let place = 0; place * step * this.scale < width - 24; place++) {
      const x = place * step * this.scale;
      pen.fillRect(x, top, 1, 5);
      pen.fillText(`${+(place * step).toFixed(1)} s`, x + 4, top + 12);
    }
  }

  border(pen, border, place, bottom) {
    const x = Math.round(border * this.scale) + 0.5;
    pen.strokeStyle = color("mark"); pen.lineWidth = 2; pen.setLineDash([5, 4]);
    pen.beginPath(); pen.moveTo(x, 0); pen.lineTo(x, bottom); pen.stroke();
    pen.setLineDash([]);
    pen.fillStyle = color("mark"); pen.textAlign = "left"; pen.textBaseline = "top"; pen.font = "bold 11px system-ui, sans-serif";
    pen.fillText(`segment ${place + 2}`, x + 4, 2);
  }

  seek(seconds) {
    const time = Math.min(Math.max(0, seconds), this.detail.seconds);
    if (this.audio) { this.audio.currentTime = time; row.playing = this; } else { this.describe(time); }
  }

  /** Moves the playhead to the audio's position, and keeps following it while the audio plays. */
  follow() {
    const time = this.audio ? this.audio.currentTime : 0, x = time * this.scale;
    this.head.style.transform = `translateX(${x}px)`;
    this.head.hidden = !this.audio;
    this.detail.words?.forEach(([, start, end], place) => this.words[place].classList.toggle("now", time > 0 && time >= start && time < end));
    if (time > 0) this.describe(time);
    const { scrollLeft, clientWidth } = this.scroller;
    if (x < scrollLeft || x > scrollLeft + clientWidth - 24) this.scroller.scrollLeft = x - clientWidth / 4;
    if (this.audio && !this.audio.paused && this.element.isConnected) {
      row.playing = this;
      cancelAnimationFrame(this.frame);
      this.frame = requestAnimationFrame(() => this.follow());
    }
  }

  /** Shows in the readout what is at a time. */
  describe(time) {
    const parts = [`${Math.max(0, time).toFixed(2)} s`];
    const word = this.detail.words?.find(([, start, end]) => time >= start && time < end);
    if (word) parts.push(`“${word[0]}”`);
    if (this.starts?.length) {
      let run = this.starts.findLastIndex((start) => start <= time);
      if (run >= 0) parts.push(`unit ${[this.detail.units, ...this.detail.others].map((units) => units[run]).join(" ")}, ${Math.round(this.detail.durations[run] * this.detail.hop * 1000)} ms`);
    }
    if (this.borders.length) parts.push(`segment ${this.borders.filter((border) => border <= time).length + 1}`);
    this.readout.textContent = parts.join(" · ");
  }

  toggle() {
    if (!this.audio) return;
    if (this.audio.paused) this.audio.play(); else this.audio.pause();
  }

  close() {
    if (this.audio) { this.audio.pause(); this.audio.removeAttribute("src"); URL.revokeObjectURL(this.url); }
  }
}
