"use strict";
// The page's data. A page opened from a file may not fetch, so data files are scripts that call `site.put`.

const site = {
  served: false,
  index: null,
  ids: [], texts: [], roles: "", sounds: "", corpora: [],
  scores: {},        // by name: Float32Array, NaN where missing
  waiting: new Map(),
  kept: new Map(),

  put(name, value) {
    const wait = this.waiting.get(name);
    this.waiting.delete(name);
    if (wait) wait.resolve(value);
  },

  /** Loads a value by name, such as `details/000012`. The last 40 are cached. */
  get(name) {
    if (this.kept.has(name)) return this.kept.get(name);
    const value = new Promise((resolve, reject) => {
      const script = document.createElement("script");
      const fail = () => {
        this.waiting.delete(name);
        this.kept.delete(name);
        reject(new Error(`data/${name}.js can't be loaded. Write the page again with echo-targets inspect.`));
      };
      this.waiting.set(name, { resolve });
      script.src = `data/${name}.js`;
      script.onload = () => { script.remove(); if (this.waiting.has(name)) fail(); };
      script.onerror = () => { script.remove(); fail(); };
      document.head.append(script);
    });
    this.kept.set(name, value);
    if (this.kept.size > 40) this.kept.delete(this.kept.keys().next().value);
    return value;
  },

  /** Loads everything that is searched and sorted. */
  async open() {
    const index = await this.get("index");
    for (const { name } of index.scores) this.scores[name] = new Float32Array(index.total).fill(NaN);
    const names = Array.from({ length: index.chunks }, (_, chunk) => `rows/${String(chunk).padStart(4, "0")}`);
    for (const chunk of await Promise.all(names.map((name) => this.get(name)))) {
      const count = chunk.ids.length;
      for (let row = 0; row < count; row++) {
        this.ids.push(chunk.ids[row]);
        this.texts.push(chunk.texts[row]);
        this.corpora.push(chunk.corpora[row]);
      }
      this.roles += chunk.roles;
      this.sounds += chunk.sounds;
      index.scores.forEach(({ name }, place) => {
        const bytes = bytesOf(chunk.scores[place]);
        this.scores[name].set(new Float32Array(bytes.buffer), chunk.first);
      });
    }
    names.forEach((name) => this.kept.delete(name));
    index.scores = index.scores.filter(({ name }) => this.scores[name].some((value) => value === value));
    this.index = index;
  },

  async detail(number) {
    const page = Math.floor(number / this.index.page);
    const rows = await this.get(`details/${String(page).padStart(6, "0")}`);
    return rows[number - page * this.index.page];
  },

  hasSound(number) {
    return this.served || this.sounds[number] === "1";
  },

  async sound(number) {
    return this.hasSound(number) ? this.get(`sounds/${String(number).padStart(6, "0")}`) : null;
  },

  /** Loads a row's synthesized targets, by version; empty if the page has none for it. */
  async voices(number) {
    return this.index.voice && this.hasSound(number) ? this.get(`voices/${String(number).padStart(6, "0")}`) : [];
  },

  /** Loads the cuts of a recording by the number of its first row in the shard. */
  async cuts(first) {
    return this.get(`recordings/${String(first).padStart(6, "0")}`);
  },

  numberOf(id) {
    if (!this.numbers) this.numbers = new Map(this.ids.map((name, number) => [name, number]));
    return this.numbers.get(id);
  },
};

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let place = 0; place < text.length; place++) bytes[place] = text.charCodeAt(place);
  return bytes;
}

/** Creates an element. The dataset's contents enter only as text, never as HTML. */
function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const counted = (count, what) => `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;
const rowLink = (id) => `#row/${encodeURIComponent(id)}`;
const ROLES = ["user", "assistant", "narrator"];

const isShare = (name) => /_rate$|_reference$|_cer$|apart|coverage|_prob$|agreement/.test(name);

function shown(name, value) {
  if (value === null || value === undefined || value !== value) return "";
  if (name === "seconds") return `${value.toFixed(2)} s`;
  if (isShare(name)) return `${(100 * value).toFixed(1)} %`;
  return value.toFixed(2);
}

const label = (name) => ({ wer_vs_reference: "WER", target_cer: "target CER" })[name] || name.replaceAll("_", " ");
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const unitColor = (unit) => `hsl(${(unit * 137.508) % 360} ${45 + (unit % 3) * 12}% ${dark.matches ? 42 : 72}%)`;
