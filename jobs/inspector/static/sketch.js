"use strict";
// Makes a target audible: each unit's mean spectrum for its mean duration, with phases by Griffin and Lim (1984).
// The result is a sketch with the rhythm and timbre of the units, not a voice.

const sketch = {
  RATE: 16000, FFT: 1024, ROUNDS: 24,

  /** Returns a WAV blob, or null if no unit has a spectrum. */
  async blob(units, hop) {
    const spectra = await site.get("spectra");
    const frames = this.frames(units, spectra);
    return frames.length ? this.wav(this.invert(frames, Math.round(hop * this.RATE))) : null;
  },

  /** Returns the magnitudes of each frame, FFT / 2 + 1 per frame. */
  frames(units, spectra) {
    const bands = bytesOf(spectra.bands), width = spectra.centers.length, bins = this.FFT / 2 + 1;
    const between = Array.from({ length: bins }, (_, bin) => {
      const hertz = (bin * this.RATE) / this.FFT;
      let band = 0;
      while (band < width - 2 && spectra.centers[band + 1] < hertz) band++;
      const share = (hertz - spectra.centers[band]) / (spectra.centers[band + 1] - spectra.centers[band]);
      return [band, Math.min(1, Math.max(0, share))];
    });
    const made = new Map(), frames = [];
    let time = 0;
    for (const unit of units) {
      time += spectra.frames[unit] || 0;
      if (!made.has(unit)) made.set(unit, Float32Array.from(between, ([band, share]) => {
        const at = unit * width + band;
        const decibels = spectra.floor + spectra.step * ((1 - share) * bands[at] + share * bands[at + 1]);
        return 10 ** (decibels / 20);
      }));
      while (frames.length < Math.round(time)) frames.push(made.get(unit));
    }
    return frames;
  },

  invert(frames, hop) {
    const size = this.FFT, length = (frames.length - 1) * hop + size;
    const hann = Float32Array.from({ length: size }, (_, at) => 0.5 - 0.5 * Math.cos((2 * Math.PI * at) / size));
    const weight = new Float32Array(length).fill(1e-8);
    frames.forEach((_, frame) => { for (let at = 0; at < size; at++) weight[frame * hop + at] += hann[at] ** 2; });
    const real = new Float32Array(size), imaginary = new Float32Array(size);
    let signal = Float32Array.from({ length }, () => Math.random() - 0.5);
    for (let round = 0; round < this.ROUNDS; round++) {
      const next = new Float32Array(length);
      frames.forEach((magnitudes, frame) => {
        const start = frame * hop;
        for (let at = 0; at < size; at++) { real[at] = signal[start + at] * hann[at]; imaginary[at] = 0; }
        this.transform(real, imaginary, 1);
        for (let bin = 0; bin <= size / 2; bin++) {
          const scale = magnitudes[bin] / (Math.hypot(real[bin], imaginary[bin]) + 1e-12);
          real[bin] *= scale; imaginary[bin] *= scale;
          if (bin && bin < size / 2) { real[size - bin] = real[bin]; imaginary[size - bin] = -imaginary[bin]; }
        }
        this.transform(real, imaginary, -1);
        for (let at = 0; at < size; at++) next[start + at] += real[at] * hann[at];
      });
      signal = next.map((value, at) => value / weight[at]);
    }
    let most = 1e-9;
    for (let at = size / 2; at < length - size / 2; at++) most = Math.max(most, Math.abs(signal[at]));
    return signal.subarray(size / 2, Math.max(size / 2 + 1, length - size / 2)).map((value) => (0.7 * value) / most);
  },

  /** In-place radix-2 Fourier transform; `sign` -1 is the inverse, unscaled. */
  transform(real, imaginary, sign) {
    const size = real.length;
    for (let at = 1, to = 0; at < size; at++) {
      let bit = size >> 1;
      for (; to & bit; bit >>= 1) to ^= bit;
      to ^= bit;
      if (at < to) {
        [real[at], real[to]] = [real[to], real[at]];
        [imaginary[at], imaginary[to]] = [imaginary[to], imaginary[at]];
      }
    }
    for (let span = 2; span <= size; span *= 2) {
      const half = span / 2, angle = (-sign * 2 * Math.PI) / span;
      for (let at = 0; at < half; at++) {
        const cos = Math.cos(angle * at), sin = Math.sin(angle * at);
        for (let low = at; low < size; low += span) {
          const high = low + half;
          const x = real[high] * cos - imaginary[high] * sin, y = real[high] * sin + imaginary[high] * cos;
          real[high] = real[low] - x; imaginary[high] = imaginary[low] - y;
          real[low] += x; imaginary[low] += y;
        }
      }
    }
  },

  wav(signal) {
    const view = new DataView(new ArrayBuffer(44 + 2 * signal.length));
    const text = (at, word) => [...word].forEach((letter, place) => view.setUint8(at + place, letter.charCodeAt(0)));
    text(0, "RIFF"); view.setUint32(4, 36 + 2 * signal.length, true); text(8, "WAVEfmt ");
    view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
    view.setUint32(24, this.RATE, true); view.setUint32(28, 2 * this.RATE, true);
    view.setUint16(32, 2, true); view.setUint16(34, 16, true);
    text(36, "data"); view.setUint32(40, 2 * signal.length, true);
    signal.forEach((value, at) => view.setInt16(44 + 2 * at, Math.max(-1, Math.min(1, value)) * 32767, true));
    return new Blob([view], { type: "audio/wav" });
  },
};
