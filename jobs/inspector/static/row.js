"use strict";
// One utterance: its sound, its transcript and, for a user turn, the recorded reply and the echo targets.

const row = {
  timelines: [], urls: [], playing: null, opened: 0,

  async open(id) {
    const opened = ++this.opened, section = document.getElementById("row"), number = site.numberOf(id);
    if (number === undefined) {
      section.replaceChildren(el("h1", {}, id), el("p", { class: "note", role: "alert" }, "No utterance has this id. ", el("a", { href: "#rows" }, "Search the list")));
      return;
    }
    const place = list.order.indexOf(number);
    if (place >= 0) { list.place = place; list.page = Math.floor(place / list.PAGE); list.draw(); }
    const detail = await site.detail(number);
    const reply = detail.other?.is_reply ? await site.detail(detail.other.number) : null;
    const [sound, replySound] = await Promise.all([site.sound(number), reply ? site.sound(detail.other.number) : null]);
    const voices = detail.targets ? await site.voices(number) : [];
    const cuts = detail.recording === undefined ? null : await site.cuts(detail.recording);
    if (opened !== this.opened) return;  // another row was opened meanwhile
    const parts = [this.head(detail, number, place), ...this.system(detail), ...this.text(detail), this.timeline(detail, sound, null, "this utterance")];
    if (cuts) parts.push(el("h2", {}, "Its recording"), this.recording = recordingView(cuts, number));
    if (detail.other && !detail.other.is_reply) {
      parts.push(el("p", {}, "Reply to ", el("a", { href: rowLink(detail.other.id) }, detail.other.id), "."));
    }
    if (reply) {
      const cut = (detail.targets || []).findIndex((target) => target.borders?.length);
      const borders = detail.targets?.[cut]?.borders;
      parts.push(el("h2", {}, "The recorded reply"),
        el("p", { class: "quote" }, reply.reference ?? reply.transcript ?? "", " ", el("a", { href: rowLink(reply.id) }, reply.id)),
        this.timeline(reply, replySound, borders, "the recorded reply"),
        borders && site.index.versions.length > 1 ? el("p", { class: "note" }, "Segment borders are those of version ", el("code", {}, site.index.versions[detail.targets[cut].version].fingerprint), ".") : "");
    }
    if (detail.targets) parts.push(...this.targets(detail, voices));
    parts.push(el("h2", {}, "Scores"), this.scores(number));
    section.replaceChildren(...parts);
    this.timelines.forEach((timeline) => timeline.draw());
    if (cuts) this.recording.show();
    this.playing = this.timelines[0];
  },

  close() {
    this.opened += 1;
    this.timelines.forEach((timeline) => timeline.close());
    this.urls.forEach((url) => URL.revokeObjectURL(url));
    this.timelines = []; this.urls = []; this.playing = null;
  },

  toggle() {
    this.playing?.toggle();
  },

  timeline(detail, sound, borders, name) {
    const made = new Timeline(detail, sound, borders, name);
    this.timelines.push(made);
    return made.element;
  },

  head(detail, number, place) {
    const go = (text, step) => el("a", {
      class: "button", role: "button",
      href: list.order[place + step] === undefined || place < 0 ? false : rowLink(site.ids[list.order[place + step]]),
      "aria-disabled": list.order[place + step] === undefined || place < 0 ? "true" : false,
    }, text);
    const facts = [detail.role, detail.corpus, detail.split, detail.language, detail.speaker_id, detail.license,
      detail.dialogue_id && `turn ${detail.turn} of ${detail.dialogue_id}`, detail.synthetic && "synthetic", detail.codebook, detail.aligned && `alignment ${detail.aligned}`, detail.source, detail.place];
    return el("div", {},
      el("div", { class: "bar-top" }, el("a", { href: "#rows" }, "← all utterances"),
        el("span", { class: "steps" }, place >= 0 ? el("span", { class: "note" }, `${(place + 1).toLocaleString("en")} of ${list.order.length.toLocaleString("en")}`) : null, go("previous", -1), go("next", 1))),
      el("h1", {}, detail.id),
      el("ul", { class: "facts" }, ...facts.filter(Boolean).map((fact) => el("li", {}, String(fact)))));
  },

  /** What the model is told before the dialogue. */
  system(detail) {
    return detail.system ? [el("h2", {}, "System text of the dialogue"), el("p", { class: "quote" }, detail.system)] : [];
  },

  text(detail) {
    if (!detail.diff) {
      const [what, text] = detail.reference ? ["Reference", detail.reference] : ["Transcript", detail.transcript];
      return text ? [el("h2", {}, what), el("p", { class: "quote" }, text)] : [];
    }
    const parts = detail.diff.flatMap(([edit, reference, transcript]) => [
      edit === "=" ? document.createTextNode(`${transcript} `) : null,
      edit !== "=" && reference ? el("del", { title: "only in the reference" }, reference) : null,
      edit !== "=" && transcript ? el("ins", { title: "only in the transcript" }, transcript) : null,
      edit === "=" ? null : document.createTextNode(" "),
    ]).filter(Boolean);
    const same = detail.diff.every(([edit]) => edit === "=");
    const flags = detail.flags?.length ? ` Flags: ${detail.flags.join(", ")}.` : "";
    return [el("h2", {}, "Transcript against reference"), el("p", { class: "quote diff" }, ...parts),
      el("p", { class: "note" }, same ? "All words agree." : el("span", {}, el("del", {}, "only in the reference"), " ", el("ins", {}, "only in the transcript"), " Case and punctuation are ignored."), flags)];
  },

  targets(detail, voices) {
    const many = detail.targets.length > 1;
    return [el("h2", {}, many ? "Echo targets" : "Echo target"),
      el("p", { class: "note legend" }, "The target's units, one row for each codebook, are above those of the recorded reply: ",
        el("span", { class: "pair s" }, el("i", {}, "12"), el("i", {}, "34")), " substituted, ",
        el("span", { class: "pair d" }, el("i", {}, "12"), el("i", {}, "")), " only in the target, ",
        el("span", { class: "pair i" }, el("i", {}, ""), el("i", {}, "34")), " only in the recording."),
      el("div", { class: many ? "versions many" : "versions" }, ...detail.targets.map((target, place) => this.target(detail, target, voices[place])))];
  },

  target(detail, target, voice) {
    const { fingerprint, differs } = site.index.versions[target.version];
    const title = el("h3", {}, el("code", {}, fingerprint), target.version === 0 ? el("span", { class: "badge" }, "current") : null,
      target.origin ? el("span", { class: "badge" }, target.origin) : null);
    if (!target.segments.length) return el("article", {}, title, el("p", { class: "note" }, "This version has no target for this turn."));
    const facts = Object.entries(target.scores).filter(([, value]) => value !== null).map(([score, value]) => [label(score), shown(score, value)]);
    if (target.apart !== null && target.apart !== undefined) facts.push(["unit error rate of current", shown("apart", target.apart)]);
    facts.push(["reply", target.source], ["model", target.model], ["codebook", target.codebook]);
    for (const [name, value] of Object.entries(differs)) facts.push([label(name), /^[0-9a-f]{60}$/.test(value) ? value.slice(0, 12) : value]);
    return el("article", {}, title, this.facts(facts), voice ? this.voice(voice) : this.sketch(target, detail), ...target.segments.map((segment, place) => this.segment(segment, place, target.segments.length)));
  },

  segment(segment, place, count) {
    const count_of = (codebooks) => codebooks[0]?.length || 0;
    const runs = segment.edits || [["=", count_of(segment.units), 0]];
    const cells = (codebooks, place) => codebooks.map((units) => {
      const unit = place === null ? "" : units[place], cell = el("i", {}, String(unit));
      if (unit !== "") cell.style.backgroundColor = unitColor(unit);
      return cell;
    });
    const pairs = [];
    let left = 0, right = 0;
    for (const [edit, mine, theirs] of runs) {
      for (let step = 0; step < Math.max(mine, theirs); step++) {
        const kind = edit === "s" ? (step >= mine ? "i" : step >= theirs ? "d" : "s") : edit;
        const pair = el("span", { class: `pair ${kind === "=" ? "same" : kind}` }, ...cells(segment.units, step < mine ? left + step : null));
        if (segment.edits) pair.append(...cells(segment.recorded, step < theirs ? right + step : null));
        if (segment.durations && step < mine) pair.title = counted(segment.durations[left + step], "frame");
        pairs.push(pair);
      }
      left += mine; right += theirs;
    }
    const wrong = (segment.edits || []).reduce((sum, [edit, mine, theirs]) => sum + (edit === "=" ? 0 : Math.max(mine, theirs)), 0);
    const notes = [counted(count_of(segment.units), "unit"), segment.recorded && `${counted(wrong, "edit")} from ${count_of(segment.recorded)} recorded`,
      segment.mean_logprob !== null && `log-probability ${segment.mean_logprob.toFixed(2)}`,
      segment.denoising_cosine !== null && `cosine ${segment.denoising_cosine.toFixed(2)}`, segment.stop_reason && segment.stop_reason !== "end" && `stopped by ${segment.stop_reason}`];
    return el("div", { class: "segment" },
      el("p", { class: "quote" }, count > 1 ? el("b", { class: "place" }, String(place + 1)) : null, segment.text.trim()),
      el("p", { class: "note" }, notes.filter(Boolean).join(" · ")),
      el("div", { class: "pairs" }, ...pairs));
  },

  /** A player for a target synthesized by a vocoder. */
  voice(flac) {
    const url = URL.createObjectURL(new Blob([bytesOf(flac)], { type: "audio/flac" }));
    this.urls.push(url);
    return el("p", { class: "sketch" }, el("audio", { controls: true, src: url, "aria-label": "the target, synthesized by a vocoder" }),
      el("span", { class: "note" }, "Synthesized from the units by the vocoder."));
  },

  sketch(target, detail) {
    const units = target.segments.flatMap((segment) => segment.units[0]);
    if (!site.index.spectra || !units.length || target.segments[0].units.length > 1 || (detail.codebook && target.codebook !== detail.codebook)) return null;
    const holder = el("p", { class: "sketch" });
    const button = el("button", { type: "button", onclick: async () => {
      button.disabled = true;
      button.textContent = "sketching…";
      await new Promise((resolve) => setTimeout(resolve, 30));  // lets the browser repaint the button
      const blob = await sketch.blob(units, detail.hop || 0.02);
      if (!blob) { button.textContent = "no spectra of these units"; return; }
      const url = URL.createObjectURL(blob);
      this.urls.push(url);
      const audio = el("audio", { controls: true, src: url, "aria-label": "sketch of the target" });
      button.replaceWith(audio);
      audio.play().catch(() => {});  // some browsers require a click on the player itself
    } }, "Play a sketch");
    holder.append(button, el("span", { class: "note" }, "Each unit's mean spectrum for its mean duration, inverted with Griffin-Lim: a sketch, not a voice."));
    return holder;
  },

  scores(number) {
    const found = site.index.scores.map(({ name, says }) => [label(name), shown(name, site.scores[name][number]), says]).filter(([, value]) => value);
    return found.length ? this.facts(found) : el("p", { class: "note" }, "None.");
  },

  facts(pairs) {
    return el("dl", { class: "scores" }, ...pairs.map(([name, value, says]) => el("div", { title: says }, el("dt", {}, name), el("dd", {}, value))));
  },
};
