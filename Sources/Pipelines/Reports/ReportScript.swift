// The page's script.

/// The script, whole, without anything from elsewhere: its digest is in the page's policy.
let reportScript = #"""

    "use strict";

    // ---- What the page holds: facts as JSON, and lists of small codes in base64.

    const element = (id) => document.getElementById(id);
    const facts = JSON.parse(element("facts").textContent);
    const tokenCount = facts.texts.length;
    const layerCount = facts.layers.length;
    const headCount = facts.heads.length;
    const special = new Set(facts.special);
    const hasText = facts.texts.some((text) => text !== "");
    const all = -1;

    const readLists = new Map();
    /// A list of numbers by its name, or null: codes as they are, and what each code stands for.
    function numbers(name) {
      if (readLists.has(name)) return readLists.get(name);
      const form = facts.numbers[name];
      let list = null;
      if (form) {
        const binary = atob(element("numbers-" + name).textContent);
        const bytes = new Uint8Array(binary.length);
        for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
        list = form.scale === "whole" ? whole(bytes, form.width) : { codes: bytes, meaning: meaning(form), form };
      }
      readLists.set(name, list);
      return list;
    }

    /// Whole numbers of two to four bytes, least first; -1 where all bits are set.
    function whole(bytes, width) {
      const values = new Int32Array(bytes.length / width);
      const none = 2 ** (8 * width) - 1;
      for (let i = 0; i < values.length; i++) {
        let value = 0;
        for (let byte = width - 1; byte >= 0; byte--) value = value * 256 + bytes[i * width + byte];
        values[i] = value === none ? -1 : value;
      }
      return values;
    }

    /// The value of each of 256 codes: 0 is none; on a logarithmic scale 1 is zero.
    function meaning({ scale, low, high }) {
      const values = new Float32Array(256).fill(NaN);
      for (let code = 1; code < 256; code++) {
        if (scale === "linear") values[code] = low + ((code - 1) * (high - low)) / 254;
        else if (code === 1) values[code] = 0;
        else values[code] = low * (high / low) ** ((code - 2) / 253);
      }
      return values;
    }

    const pieceOf = numbers("pieces");
    const leadOf = (token) => {
      const before = facts.befores[token];
      return before === 0 ? "" : before === 1 ? " " : before;
    };

    // ---- Text of strangers, made visible: it reaches the page as text nodes alone.

    // Controls, marks that turn the direction of writing, blanks without width, and the tags block. Joiners stay: scripts and
    // emoji need them.
    const invisible = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu;
    const lineEnds = /\r\n|\r/g;

    function codeName(character) {
      return "U+" + character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    }

    /// Adds text to a node, with what cannot be seen by its number.
    function addText(node, text, isToken) {
      let rest = text.replace(lineEnds, "\n");
      // A mark that combines with what is before it would sit on another token's letter.
      if (isToken && /^\p{M}/u.test(rest)) rest = "\u25cc" + rest;
      let end = 0;
      for (const match of rest.matchAll(invisible)) {
        if (match.index > end) node.append(rest.slice(end, match.index));
        node.append(make("span", "code", codeName(match[0])));
        end = match.index + match[0].length;
      }
      if (end < rest.length) node.append(rest.slice(end));
    }

    function make(tag, className, text) {
      const node = document.createElement(tag);
      if (className) node.className = className;
      if (text !== undefined) node.textContent = text;
      return node;
    }

    /// A token's text on one line, for lists and for speech.
    function nameOf(token) {
      const text = facts.texts[token];
      const name = text.trim() === "" ? facts.pieces[pieceOf[token]] : text;
      const line = name.replace(invisible, codeName).replace(/\s+/g, " ");
      return [...line].length > 40 ? [...line].slice(0, 39).join("") + "…" : line || "(nothing)";
    }

    // ---- Numbers, written.

    const count = (value) => value.toLocaleString("en-US");
    function round(value) {
      if (!Number.isFinite(value)) return "–";
      if (value < 0) return "−" + round(-value);
      if (value >= 1000) return count(Math.round(value));
      if (value >= 100) return value.toFixed(0);
      if (value >= 10) return value.toFixed(1);
      if (value >= 0.1 || value === 0) return value.toFixed(value === 0 ? 0 : 2);
      return value >= 0.001 ? String(Number(value.toPrecision(2))) : value.toExponential(0).replace("-", "−");
    }
    const percent = (value) =>
      !Number.isFinite(value) ? "–" : value >= 0.1 ? (100 * value).toFixed(0) + "%" : value >= 0.001
        ? (100 * value).toFixed(1) + "%" : value > 0 ? "< 0.1%" : "0%";
    const times = (value) => (Number.isFinite(value) ? round(value) + "×" : "–");
    // With their units, where a number stands alone; legends tell the unit once.
    const natural = (value) => round(value) + " nats";
    const far = (value) => round(value) + (value === 1 ? " token" : " tokens");

    // ---- The state, and what it selects.

    const state = { token: null, layer: all, head: all, measure: "", gridMeasure: "", probe: 0 };

    const layerName = (layer) => (layer === all ? "all layers" : "layer " + facts.layers[layer]);
    const headName = (head) => (head === all ? "all heads" : "head " + facts.heads[head]);
    const selectionName = () =>
      state.layer === all && state.head === all ? "mean of all layers and heads"
        : state.layer !== all && state.head !== all ? `${layerName(state.layer)}, ${headName(state.head)}`
        : state.head === all ? `${layerName(state.layer)}, mean of its heads`
        : `${headName(state.head)}, mean over layers`;

    /// The heads that are selected, by their places in lists.
    function selectedHeads(layer = state.layer, head = state.head) {
      const places = [];
      for (let row = 0; row < layerCount; row++) {
        if (layer !== all && row !== layer) continue;
        for (let column = 0; column < headCount; column++) {
          if (head === all || column === head) places.push(row * headCount + column);
        }
      }
      return places;
    }

    // Of which tokens, as queries, keys are kept; the place of each among them.
    const queries = facts.queries;
    const queryPlace = queries && new Map(queries.map((token, place) => [token, place]));
    const queryCount = queries ? queries.length : tokenCount;
    const placeOfQuery = (token) => (queries ? queryPlace.get(token) ?? -1 : token);

    /// The mean of some rows of a list, each `length` long.
    function meanOfRows(list, length, rows) {
      const sums = new Float64Array(length);
      const counts = new Uint32Array(length);
      for (const row of rows) {
        for (let i = 0, at = row * length; i < length; i++, at++) {
          const value = list.meaning[list.codes[at]];
          if (value === value) { sums[i] += value; counts[i]++; }
        }
      }
      return Float32Array.from(sums, (sum, i) => (counts[i] ? sum / counts[i] : NaN));
    }

    /// A profile by block, spread over the tokens.
    function spread(profile) {
      return Float32Array.from({ length: tokenCount }, (_, token) => profile[Math.floor(token / facts.profileSize)]);
    }

    const headMeasure = (name, profile) => () =>
      facts.isComplete ? meanOfRows(numbers(name), tokenCount, selectedHeads())
        : spread(meanOfRows(numbers(profile), Math.ceil(tokenCount / facts.profileSize), selectedHeads()));
    const blocks = facts.isComplete ? "" : `, means of blocks of ${facts.profileSize}`;

    // What the text can be shaded by: a name, how a value is written, the scale, the values of all tokens, and a line on what
    // it is.
    const measures = [];
    if (numbers("mass") || numbers("layerMass")) {
      measures.push({
        id: "mass", name: "received mass", write: times, scale: "logarithmic",
        unit: "× the mean token’s share",
        selection: () => numbers("mass") ? selectionName() : state.layer !== all && facts.keepsLayers
          ? `${layerName(state.layer)}, mean of its heads` : "mean of all layers and heads",
        values: () => {
          if (numbers("mass")) return meanOfRows(numbers("mass"), tokenCount, selectedHeads());
          const rows = !facts.keepsLayers ? [0] : state.layer === all ? [...facts.layers.keys()] : [state.layer];
          return meanOfRows(numbers("layerMass"), tokenCount, rows);
        },
      });
    }
    if (numbers("topKeys")) {
      measures.push({
        id: "looks", name: "where the picked token looks", write: percent, scale: "logarithmic", unit: "of its mass",
        selection: selectionName, values: () => lookedAt(state.token),
      });
    }
    if (numbers("entropy")) {
      measures.push({
        id: "entropy", name: "entropy of its weights", write: natural, tick: round, scale: "linear", unit: "nats" + blocks,
        selection: selectionName, values: headMeasure("entropy", "entropyProfile"),
      });
    }
    if (numbers("distance")) {
      measures.push({
        id: "distance", name: "mean distance it looks", write: far, tick: round, scale: "logarithmic", unit: "tokens" + blocks,
        selection: selectionName, values: headMeasure("distance", "distanceProfile"),
      });
    }
    if (numbers("logit") && facts.isComplete) {
      measures.push({
        id: "logit", name: "its largest logit", write: round, scale: "linear", unit: "after scale and bias",
        selection: selectionName, values: headMeasure("logit"),
      });
    }
    facts.rollouts.forEach((query, index) => measures.push({
      id: "rollout" + index, name: `rollout of token ${count(query)} “${nameOf(query)}”`, write: percent,
      scale: "logarithmic", unit: "of what reaches it through all layers", selection: () => "all layers and heads",
      values: () => meanOfRows(numbers("rollout" + index), tokenCount, [0]),
    }));
    facts.probes.forEach(([edit, what], index) => measures.push({
      id: "probe" + index, name: `probe: ${edit}`, write: round, scale: "signed", unit: what,
      selection: () => "of the whole model", values: () => meanOfRows(numbers("probe" + index), tokenCount, [0]),
    }));

    /// The share of a token's mass on each key, as far as top keys tell, in the mean of the selected heads.
    function lookedAt(token) {
      const values = new Float32Array(tokenCount).fill(NaN);
      for (const [key, weight] of topKeys(token)) values[key] = weight;
      return values;
    }

    /// The keys that a token looks at most, and their weights, most first; of several heads, the mean of what each tells.
    function topKeys(token, layer = state.layer, head = state.head) {
      const keys = numbers("topKeys"), weights = numbers("topWeights");
      const place = token === null || !keys ? -1 : placeOfQuery(token);
      if (place < 0) return [];
      const heads = selectedHeads(layer, head);
      const sums = new Map();
      for (const row of heads) {
        for (let rank = 0; rank < facts.keysKept; rank++) {
          const at = (row * queryCount + place) * facts.keysKept + rank;
          const weight = weights.meaning[weights.codes[at]];
          if (keys[at] >= 0 && weight > 0) sums.set(keys[at], (sums.get(keys[at]) ?? 0) + weight / heads.length);
        }
      }
      return [...sums].sort((one, other) => other[1] - one[1] || one[0] - other[0]);
    }

    // What a cell of layers and heads can show.
    const gridMeasures = [];
    if (numbers("topKeys")) {
      gridMeasures.push({
        id: "looks", name: "largest weight, picked token", write: percent, scale: "linear", low: 0, high: 1, needsToken: true,
        value: (place) => topKeys(state.token, Math.floor(place / headCount), place % headCount)[0]?.[1] ?? NaN,
      });
    }
    for (const [id, list, name, write, scale, unit] of [
      ["entropy", facts.headEntropy, "mean entropy", natural, "linear", "nats"],
      ["distance", facts.headDistance, "mean distance", far, "logarithmic", "tokens"],
      ["first", facts.headFirst, "share of the first token", percent, "linear"],
      ["special", facts.headSpecial, "share of special tokens", percent, "linear"],
      ["sink", facts.headSink, "share of its sink", percent, "linear"],
      ["logit", facts.headLogit, "mean of the largest logits", round, "linear"],
    ]) {
      if (list.some((value) => value !== null)) {
        gridMeasures.push({ id, name, write, scale, unit, value: (place) => list[place] ?? NaN });
      }
    }

    // ---- Scales: from values to 0 … 1, and their legends.

    /// Where values lie between the lowest quarter, which stays blank, and the highest two-hundredth, so that one token does not
    /// hide all others; or between given ends.
    function fit(values, scale, ends) {
      const known = Float32Array.from(values).filter((value) => Number.isFinite(value) && (scale !== "logarithmic" || value > 0));
      known.sort();
      if (!known.length) return null;
      if (scale === "signed") {
        const most = Math.max(Math.abs(known[0]), Math.abs(known[known.length - 1])) || 1;
        return { place: (value) => Math.abs(value) / most, at: (share) => (2 * share - 1) * most, scale };
      }
      let [low, high] = ends ?? [known[Math.floor((known.length - 1) * 0.25)], known[Math.ceil((known.length - 1) * 0.995)]];
      if (scale === "logarithmic") low = Math.max(low, high / 65536);
      if (!(high > low)) return { place: () => 0.5, at: () => low, scale, isSingle: true };
      const bounded = (share) => Math.min(1, Math.max(0, share));
      return scale === "logarithmic"
        ? { place: (value) => (value > 0 ? bounded(Math.log(value / low) / Math.log(high / low)) : 0),
            at: (share) => low * (high / low) ** share, scale }
        : { place: (value) => bounded((value - low) / (high - low)), at: (share) => low + share * (high - low), scale };
    }

    function ramp(share) {
      const place = Math.min(255, Math.max(0, Math.round(share * 255)));
      return facts.ramp.slice(place * 6, place * 6 + 6);
    }

    /// A bar with ticks; `colours` are those of the bar from left to right.
    function showLegend(node, title, fitted, write, unit, colours) {
      node.replaceChildren();
      const bar = make("div", "bar"), strip = make("span", "ramp"), ticks = make("div", "ticks");
      strip.style.background = `linear-gradient(to right, ${colours.join(", ")})`;
      const shares = fitted.isSingle ? [0.5] : [0, 1 / 3, 2 / 3, 1];
      if (fitted.scale === "signed") shares.splice(1, 2, 0.5);
      for (const share of shares) {
        const tick = make("span", "", write(fitted.at(share)));
        tick.style.left = 100 * share + "%";
        ticks.append(tick);
      }
      bar.append(strip, ticks);
      node.append(bar, make("span", "", `${title}${unit ? ` (${unit})` : ""}`));
    }

    const shadeColours = (isSigned) => {
      const steps = [0, 0.25, 0.5, 0.75, 1];
      const mix = (tint, share) => `color-mix(in oklab, var(${tint}) ${100 * share}%, transparent)`;
      return isSigned
        ? [...steps.slice().reverse().map((share) => mix("--less", share)), ...steps.map((share) => mix("--shade", share))]
        : steps.map((share) => mix("--shade", share));
    };
    const rampColours = () => Array.from({ length: 17 }, (_, step) => "#" + ramp(step / 16));

    // ---- The text. Long ones are cut into chunks, of which only those near the view have tokens on the page.

    const chunks = [];
    {
      // Ends at a line's end where there is one, else after 256 tokens. What is complete is one chunk.
      const most = facts.isComplete && tokenCount <= 4096 ? tokenCount : 384;
      let start = 0;
      while (start < tokenCount) {
        let end = Math.min(tokenCount, start + (most === 384 ? 256 : most));
        if (end < tokenCount) {
          for (let token = start + 160; token < Math.min(tokenCount, start + most); token++) {
            if (/\n/.test(leadOf(token)) || /\n$/.test(facts.texts[token - 1])) { end = token; if (token >= start + 256) break; }
          }
        }
        chunks.push({ start, end, node: null, spans: null });
        start = end;
      }
    }
    const chunkOf = (token) => {
      let [low, high] = [0, chunks.length - 1];
      while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (chunks[middle].start <= token) low = middle; else high = middle - 1;
      }
      return chunks[low];
    };

    let shading = null, shadingValues = null, shadingMeasure = null;

    function tokenSpan(token) {
      // What is no part of the text does not decide which way a paragraph is written.
      const isApart = special.has(token) || facts.texts[token] === "";
      const span = make(isApart ? "bdi" : "span", "token");
      span.tokenIndex = token;
      if (special.has(token)) {
        span.classList.add("special");
        addText(span, facts.pieces[pieceOf[token]], true);
      } else if (facts.texts[token] === "") {
        if (hasText) span.classList.add("bare");
        addText(span, facts.pieces[pieceOf[token]], true);
      } else addText(span, facts.texts[token], true);
      if (queries && queryPlace.has(token)) span.classList.add("hasKeys");
      return span;
    }

    function fillChunk(chunk) {
      if (chunk.spans) return;
      chunk.spans = [];
      const content = document.createDocumentFragment();
      if (chunks.length > 1) content.append(make("span", "from", count(chunk.start)));
      for (let token = chunk.start; token < chunk.end; token++) {
        const span = tokenSpan(token);
        // A chunk begins on a line of its own: the end of the line before is not shown twice.
        const lead = token === chunk.start && token > 0 ? leadOf(token).replace(/^[^\S\n]*\n/, "") : leadOf(token);
        addText(content, lead || (hasText ? "" : " "), false);
        content.append(span);
        chunk.spans.push(span);
      }
      chunk.node.replaceChildren(content);
      chunk.node.style.height = "";
      paintChunk(chunk);
    }

    function emptyChunk(chunk) {
      if (!chunk.spans) return;
      chunk.node.style.height = chunk.node.offsetHeight + "px";
      chunk.node.replaceChildren();
      chunk.spans = null;
    }

    const outlined = new Map();
    function paintChunk(chunk) {
      chunk.spans.forEach((span, place) => paintToken(span, chunk.start + place));
    }
    function paintToken(span, token) {
      const value = shadingValues ? shadingValues[token] : NaN;
      const share = shading && Number.isFinite(value) ? shading.place(value) : 0;
      span.style.setProperty("--share", (share * 100).toFixed(1) + "%");
      if (shading?.scale === "signed" && value < 0) span.style.setProperty("--tint", "var(--less)");
      else span.style.removeProperty("--tint");
      const weight = outlined.get(token);
      span.classList.toggle("isKey", weight !== undefined);
      if (weight !== undefined) span.style.setProperty("--ring", (1 + 2 * Math.min(1, weight)).toFixed(1) + "px");
      span.classList.toggle("isPicked", token === state.token);
    }

    function buildText() {
      const text = element("text");
      const style = getComputedStyle(text);
      const perLine = Math.max(20, text.clientWidth / (parseFloat(style.fontSize) * 0.52));
      const lineHeight = parseFloat(style.lineHeight);
      const watcher = new IntersectionObserver((entries) => {
        for (const entry of entries) {
          if (entry.isIntersecting) fillChunk(entry.target.chunk); else if (!isPrinting) emptyChunk(entry.target.chunk);
        }
      }, { root: text, rootMargin: "1200px 0px" });
      for (const chunk of chunks) {
        chunk.node = make("div", "chunk");
        chunk.node.chunk = chunk;
        if (chunks.length > 1) {
          let characters = 0, lines = 0;
          for (let token = chunk.start; token < chunk.end; token++) {
            const written = facts.texts[token] || facts.pieces[pieceOf[token]];
            characters += written.length + leadOf(token).length + (hasText ? 0 : 1);
            lines += leadOf(token).split("\n").length - 1;
          }
          chunk.node.style.height = Math.round((Math.max(1, characters / perLine) + lines * 0.6) * lineHeight + 20) + "px";
        }
        text.append(chunk.node);
        if (chunks.length > 1) watcher.observe(chunk.node); else fillChunk(chunk);
      }
      if (chunks.length === 1) text.classList.add("fits");
    }

    function spanOf(token) {
      const chunk = chunkOf(token);
      return chunk.spans ? chunk.spans[token - chunk.start] : null;
    }

    function scrollTo(token) {
      const text = element("text"), chunk = chunkOf(token);
      fillChunk(chunk);
      const show = () => {
        const span = spanOf(token);
        if (!span) return;
        const box = span.getBoundingClientRect(), frame = text.getBoundingClientRect();
        if (box.top < frame.top + 30 || box.bottom > frame.bottom - 30) {
          text.scrollTop += box.top - frame.top - (frame.height - box.height) / 2;
        }
      };
      show();
      // Chunks that are filled on the way there have other heights than were guessed.
      requestAnimationFrame(() => { show(); requestAnimationFrame(show); });
    }

    function shadeText() {
      shadingMeasure = measures.find((measure) => measure.id === state.measure) ?? measures[0];
      if (!shadingMeasure) return;
      shadingValues = shadingMeasure.values();
      shading = fit(shadingValues, shadingMeasure.scale);
      outlined.clear();
      // A head's own keys; of several heads the twelve with most weight.
      for (const [key, weight] of topKeys(state.token).slice(0, 12)) outlined.set(key, weight);
      for (const chunk of chunks) if (chunk.spans) paintChunk(chunk);
      const legend = element("text-legend");
      if (shading) {
        showLegend(legend, `${shadingMeasure.name}, ${shadingMeasure.selection()}`, shading, shadingMeasure.tick ?? shadingMeasure.write,
          shadingMeasure.unit, shadeColours(shading.scale === "signed"));
      } else {
        legend.replaceChildren(make("span", "", state.token === null && shadingMeasure.id === "looks"
          ? "Pick a token to see where it looks."
          : shadingMeasure.id === "looks" ? "The page has no keys of this token: n and p go to the next that has." : "No values."));
      }
      drawOverview();
    }

    // ---- The strip over the text: the whole document at once.

    /// The colour that a custom property has in the theme of the moment, for canvases.
    function colourOf(property) {
      const probe = make("span");
      probe.style.color = `var(${property})`;
      document.body.append(probe);
      const colour = getComputedStyle(probe).color;
      probe.remove();
      return colour;
    }

    function drawOverview() {
      const canvas = element("overview");
      const isShown = chunks.length > 1;
      canvas.hidden = !isShown;
      if (!isShown) return;
      const width = canvas.clientWidth || 600;
      canvas.width = width;
      canvas.height = 22;
      const pen = canvas.getContext("2d");
      pen.clearRect(0, 0, width, 22);
      const [shade, less, ink] = ["--shade", "--less", "--ink"].map(colourOf);
      for (let x = 0; shading && x < width; x++) {
        const start = Math.floor((x * tokenCount) / width);
        const end = Math.max(start + 1, Math.floor(((x + 1) * tokenCount) / width));
        // The mean where all tokens have values, the most where few have.
        let sum = 0, known = 0, most = 0, isLess = false;
        for (let token = start; token < end; token++) {
          const value = shadingValues[token];
          if (!Number.isFinite(value)) continue;
          const share = shading.place(value);
          sum += share;
          known++;
          if (share > most) { most = share; isLess = value < 0; }
        }
        const isSparse = shadingMeasure.id === "looks" || shading.scale === "signed";
        pen.fillStyle = isLess && shading.scale === "signed" ? less : shade;
        pen.globalAlpha = isSparse ? most : known ? sum / known : 0;
        pen.fillRect(x, 0, 1, 22);
      }
      pen.globalAlpha = 1;
      pen.fillStyle = ink;
      const text = element("text");
      const first = chunks.find((chunk) => chunk.node && chunk.node.offsetTop + chunk.node.offsetHeight > text.scrollTop);
      if (first) pen.fillRect((first.start / tokenCount) * width, 19, Math.max(3, (256 / tokenCount) * width), 3);
      if (state.token !== null) pen.fillRect((state.token / tokenCount) * width - 1, 0, 2, 22);
    }

    // ---- The picked token.

    function bars(rows, write, most, select) {
      const table = make("table", "bars");
      for (const [key, value] of rows) {
        const row = table.insertRow();
        row.append(make("td", "place", count(key)));
        const name = row.insertCell();
        name.className = "name";
        const button = make("button", special.has(key) ? "special" : "");
        button.type = "button";
        button.append(make("bdi", "", nameOf(key)));
        button.setAttribute("aria-label", `go to token ${key}, ${nameOf(key)}`);
        button.addEventListener("click", () => select(key));
        name.append(button);
        const meter = make("div", "meter"), fill = make("i", value < 0 ? "less" : most.isSigned ? "more" : "");
        fill.style.width = Math.max(0.5, (100 * Math.abs(value)) / most.value) + "%";
        meter.append(fill);
        row.insertCell().append(meter);
        row.append(make("td", "value", write(value)));
      }
      return table;
    }

    let ends = null;
    /// Where a token's text is in the document, from the texts before it.
    function placeOf(token) {
      if (!ends) {
        ends = new Int32Array(tokenCount);
        const given = new Map(facts.places);
        let next = 0;
        for (let i = 0; i < tokenCount; i++) {
          next += [...leadOf(i)].length;
          if (given.has(i)) next = given.get(i);
          if (facts.texts[i] !== "") next += [...facts.texts[i]].length;
          ends[i] = next;
        }
      }
      const length = [...facts.texts[token]].length;
      return length ? [ends[token] - length, ends[token]] : null;
    }

    function showToken() {
      const section = element("token");
      section.replaceChildren();
      const token = state.token;
      const title = make("h2", "", token === null ? "No token picked" : `Token ${count(token)}`);
      title.id = "token-title";
      section.append(title);
      if (token === null) {
        section.append(make("p", "small", "Pick one in the text: then this says where it looks, in each layer and head, and the "
          + "text shows its keys. Press ? for all keys."));
        const mass = measures.find((measure) => measure.id === "mass");
        if (mass) {
          const values = mass.values();
          const order = Array.from(values.keys()).filter((i) => Number.isFinite(values[i])).sort((a, b) => values[b] - values[a] || a - b);
          const rows = order.slice(0, 10).map((key) => [key, values[key]]);
          if (rows.length) section.append(make("h3", "", `Most mass received, ${mass.selection()}`), bars(rows, times, { value: rows[0][1] }, pick));
        }
        return;
      }
      const name = make("p", "picked");
      name.append(make("bdi", "", nameOf(token)));
      section.append(name);
      const list = make("dl");
      const add = (term, value) => list.append(make("dt", "", term), make("dd", "", value));
      const place = placeOf(token);
      if (place) add("characters", `${count(place[0])} – ${count(place[1])}`);
      const piece = facts.pieces[pieceOf[token]].replace(invisible, codeName);
      if (piece !== nameOf(token)) add("in the vocabulary", [...piece].length > 40 ? [...piece].slice(0, 39).join("") + "…" : piece);
      if (special.has(token)) add("kind", "special token");
      const queryAt = placeOfQuery(token);
      const massMeasure = measures.find((measure) => measure.id === "mass");
      if (massMeasure) add("received mass", times(massMeasure.values()[token]) + (facts.isComplete ? "" : " ¹"));
      const ofQuery = (name) => queryAt < 0 || !numbers(name) ? NaN : meanAt(numbers(name), queryAt);
      if (queryAt >= 0) {
        if (numbers("entropy")) add("entropy", natural(ofQuery("entropy")));
        if (numbers("distance")) add("mean distance", far(ofQuery("distance")));
        if (numbers("logit")) add("largest logit", round(ofQuery("logit")));
      }
      facts.probes.forEach(([edit], index) => {
        const value = meanOfRows(numbers("probe" + index), tokenCount, [0])[token];
        if (Number.isFinite(value)) add(`probe: ${edit}`, round(value));
      });
      section.append(list);
      if (numbers("topKeys")) {
        const rows = topKeys(token).slice(0, 10);
        section.append(make("h3", "", `Looks at, ${selectionName()}`));
        if (rows.length) section.append(bars(rows, percent, { value: Math.max(rows[0][1], 1e-9) }, pick));
        if (queryAt < 0) {
          const nearest = nearestQuery(token);
          const line = make("p", "small", `Keys are kept of ${count(queryCount)} of ${count(tokenCount)} tokens, those with a dotted `
            + "line. The nearest is ");
          const button = make("button", "", `token ${count(nearest)}`);
          button.type = "button";
          button.addEventListener("click", () => pick(nearest));
          line.append(button);
          section.append(line);
        } else if (selectedHeads().length > 1) {
          section.append(make("p", "small", `The mean of what each head’s ${facts.keysKept} largest weights tell: at least this much.`));
        } else if (!rows.length) section.append(make("p", "small", "It sees no key."));
      }
      if (!facts.isComplete && massMeasure) section.append(make("p", "small", `¹ ${massMeasure.selection()}`));
    }

    /// The mean over the selected heads of a list by query.
    function meanAt(list, place) {
      let sum = 0, known = 0;
      for (const row of selectedHeads()) {
        const value = list.meaning[list.codes[row * queryCount + place]];
        if (Number.isFinite(value)) { sum += value; known++; }
      }
      return known ? sum / known : NaN;
    }

    function nearestQuery(token, direction = 0) {
      if (!queries) return Math.min(tokenCount - 1, Math.max(0, token + direction));
      let best = null;
      for (const query of queries) {
        if (direction && Math.sign(query - token) !== direction) continue;
        if (best === null || Math.abs(query - token) < Math.abs(best - token)) best = query;
      }
      return best ?? token;
    }

    // ---- Layers and heads.

    const cells = [];
    function buildGrid() {
      const table = make("table");
      const corner = table.insertRow();
      const title = make("th", "", "");
      title.setAttribute("aria-label", "layer");
      corner.append(title);
      facts.heads.forEach((head, column) => {
        // Names that would not fit are left out.
        const name = make("th", "", headCount <= 20 || column % 4 === 0 ? String(head) : "");
        name.scope = "col";
        name.setAttribute("aria-label", "head " + head);
        corner.append(name);
      });
      facts.layers.forEach((layer, row) => {
        const line = table.insertRow();
        const name = make("th", "", String(layer));
        name.scope = "row";
        name.setAttribute("aria-label", "layer " + layer);
        line.append(name);
        facts.heads.forEach((head, column) => {
          const button = make("button");
          button.type = "button";
          button.tabIndex = -1;
          button.addEventListener("click", () => {
            const isSame = state.layer === row && state.head === column;
            select(isSame ? all : row, isSame ? all : column);
          });
          line.insertCell().append(button);
          cells.push(button);
        });
      });
      element("grid-table").append(table);
    }

    /// Whether black reads better than white on a colour.
    function isLight(colour) {
      const [red, green, blue] = [0, 2, 4].map((at) => (parseInt(colour.slice(at, at + 2), 16) / 255) ** 2.2);
      return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.2;
    }

    function showGrid() {
      const measure = gridMeasures.find((one) => one.id === state.gridMeasure) ?? gridMeasures[0];
      element("grid").hidden = !measure;
      if (!measure) return;
      const values = cells.map((_, place) => measure.value(place));
      const fitted = fit(values, measure.scale, measure.high !== undefined ? [measure.low, measure.high] : undefined);
      cells.forEach((button, place) => {
        const value = values[place];
        const colour = fitted && Number.isFinite(value) ? ramp(fitted.place(value)) : null;
        button.style.background = colour ? "#" + colour : "var(--chip)";
        button.style.color = !colour ? "var(--quiet)" : isLight(colour) ? "#000" : "#fff";
        const written = measure.write(value);
        button.textContent = headCount <= 16 ? written.replace(/ .*|%$/, "").replace("<", "0") : "";
        const [row, column] = [Math.floor(place / headCount), place % headCount];
        let title = `${layerName(row)}, ${headName(column)}: ${measure.name} ${written}`;
        if (measure.needsToken && Number.isFinite(value)) title += ` on “${nameOf(topKeys(state.token, row, column)[0][0])}”`;
        button.title = title;
        button.setAttribute("aria-label", title);
        const isChosen = (state.layer === row || state.layer === all) && (state.head === column || state.head === all)
          && !(state.layer === all && state.head === all);
        button.classList.toggle("isChosen", isChosen);
        button.setAttribute("aria-pressed", String(isChosen));
        button.tabIndex = isChosen || (place === 0 && state.layer === all && state.head === all) ? 0 : -1;
      });
      if (fitted) showLegend(element("grid-legend"), measure.unit ?? "", fitted, measure.unit ? round : measure.write, "", rampColours());
      else element("grid-legend").replaceChildren(make("span", "", measure.needsToken ? "Pick a token of which keys are kept." : "No values."));
    }

    // ---- Block maps.

    let mapFit = null;
    const mapShares = new Float32Array(256);
    /// Draws a map's cells into an image, `side` pixels each way.
    function paintMap(shareAt, side) {
      const image = new ImageData(side, side);
      for (let i = 0; i < side * side; i++) {
        const place = 6 * Math.round(255 * shareAt(i));
        const colour = parseInt(facts.ramp.slice(place, place + 6), 16);
        image.data[4 * i] = colour >> 16;
        image.data[4 * i + 1] = (colour >> 8) & 255;
        image.data[4 * i + 2] = colour & 255;
        image.data[4 * i + 3] = 255;
      }
      return image;
    }

    const thumbnail = { size: 0, gap: 3, margin: 22 };
    const oneMap = { margin: 64, top: 22 };
    let isGridOfMapsDrawn = false;
    function buildMaps() {
      const maps = numbers("maps");
      if (!maps) return;
      element("maps").hidden = false;
      const counts = new Uint32Array(256);
      for (const code of maps.codes) counts[code]++;
      const known = maps.codes.length - counts[0] - counts[1];
      // From the lowest hundredth to the highest thousandth.
      let low = 2, high = 255, sum = 0;
      for (let code = 2; code < 256; code++) { sum += counts[code]; if (sum >= known * 0.01) { low = code; break; } }
      sum = 0;
      for (let code = 255; code >= 2; code--) { sum += counts[code]; if (sum >= known * 0.001) { high = code; break; } }
      mapFit = { low: maps.meaning[low], high: Math.max(maps.meaning[high], maps.meaning[low] * 1.01) };
      mapFit.place = (value) => value > 0 ? Math.min(1, Math.max(0, Math.log(value / mapFit.low) / Math.log(mapFit.high / mapFit.low))) : 0;
      mapFit.at = (share) => mapFit.low * (mapFit.high / mapFit.low) ** share;
      mapFit.scale = "logarithmic";
      for (let code = 0; code < 256; code++) mapShares[code] = mapFit.place(maps.meaning[code]);
      showLegend(element("map-legend"), "mean weight", mapFit, times, "× the weight of a query that sees all keys alike; darkest: that or less",
        rampColours());
      const size = facts.mapSize;
      element("maps-text").textContent = size === 1
        ? "The weight of every pair: queries downwards, keys to the right."
        : `Mean weights of blocks of ${count(size)} × ${count(size)} tokens: queries downwards, keys to the right.`;
    }

    function drawAllMaps() {
      const maps = numbers("maps"), side = facts.mapSide, canvas = element("all-maps");
      const width = Math.max(300, canvas.parentNode.clientWidth);
      const ratio = window.devicePixelRatio || 1;
      thumbnail.size = Math.max(4, Math.min(96, (width - thumbnail.margin) / headCount - thumbnail.gap));
      const step = thumbnail.size + thumbnail.gap;
      const drawnWidth = thumbnail.margin + headCount * step, drawnHeight = thumbnail.margin + layerCount * step;
      canvas.width = Math.round(drawnWidth * ratio);
      canvas.height = Math.round(drawnHeight * ratio);
      canvas.style.width = drawnWidth + "px";
      canvas.style.aspectRatio = `${drawnWidth} / ${drawnHeight}`;
      const pen = canvas.getContext("2d");
      pen.scale(ratio, ratio);
      pen.imageSmoothingEnabled = side > thumbnail.size * ratio;
      pen.imageSmoothingQuality = "medium";
      const scratch = document.createElement("canvas");
      scratch.width = scratch.height = side;
      const scratchPen = scratch.getContext("2d");
      for (let place = 0; place < layerCount * headCount; place++) {
        const base = place * side * side;
        scratchPen.putImageData(paintMap((i) => mapShares[maps.codes[base + i]], side), 0, 0);
        const x = thumbnail.margin + (place % headCount) * step, y = thumbnail.margin + Math.floor(place / headCount) * step;
        pen.drawImage(scratch, x, y, thumbnail.size, thumbnail.size);
      }
      pen.fillStyle = labelColour();
      pen.font = "10px system-ui, sans-serif";
      pen.textAlign = "center";
      pen.textBaseline = "middle";
      const every = Math.ceil(16 / step);
      for (let column = 0; column < headCount; column += every) {
        pen.fillText(facts.heads[column], thumbnail.margin + column * step + thumbnail.size / 2, thumbnail.margin / 2);
      }
      for (let row = 0; row < layerCount; row += every) {
        pen.fillText(facts.layers[row], thumbnail.margin / 2, thumbnail.margin + row * step + thumbnail.size / 2);
      }
      canvas.setAttribute("aria-label", `Block maps of ${layerCount} layers and ${headCount} heads`);
    }

    // Paper is light whatever the screen is.
    const labelColour = () => (isPrinting ? "#444" : getComputedStyle(element("maps-text")).color);

    let mapValues = null;
    function drawOneMap() {
      const maps = numbers("maps");
      if (!maps) return;
      if (!isGridOfMapsDrawn) { drawAllMaps(); isGridOfMapsDrawn = true; }
      const side = facts.mapSide, canvas = element("one-map");
      mapValues = meanOfRows(maps, side * side, selectedHeads());
      const scratch = document.createElement("canvas");
      scratch.width = scratch.height = side;
      scratch.getContext("2d").putImageData(paintMap((i) => mapFit.place(mapValues[i]), side), 0, 0);
      const ratio = window.devicePixelRatio || 1;
      const width = Math.min(640, canvas.parentNode.clientWidth), margin = oneMap.margin, plot = width - margin - 8;
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round((plot + margin) * ratio);
      const pen = canvas.getContext("2d");
      pen.scale(ratio, ratio);
      pen.imageSmoothingEnabled = false;
      pen.drawImage(scratch, margin, oneMap.top, plot, plot);
      pen.fillStyle = labelColour();
      pen.font = "11px system-ui, sans-serif";
      // Ticks at round numbers of tokens.
      const shown = side * facts.mapSize, top = oneMap.top;
      const rough = tokenCount / 4;
      const power = 10 ** Math.floor(Math.log10(Math.max(1, rough)));
      const step = Math.max(1, [1, 2, 2.5, 5, 10].map((factor) => factor * power).filter((one) => Number.isInteger(one) && one <= Math.max(1, rough)).pop() ?? 1);
      for (let token = 0; token < tokenCount; token += step) {
        const at = (token / shown) * plot;
        pen.textBaseline = "alphabetic";
        pen.textAlign = token === 0 ? "left" : "center";
        if (at < plot - 10) pen.fillText(count(token), margin + at, 16);
        pen.textAlign = "right";
        pen.textBaseline = token === 0 ? "top" : "middle";
        pen.fillText(count(token), margin - 6, top + at);
        pen.fillRect(margin + at, 19, 1, 3);
        pen.fillRect(margin - 3, top + at, 3, 1);
      }
      pen.textBaseline = "alphabetic";
      pen.textAlign = "center";
      pen.fillText("keys (tokens) →", margin + plot / 2, top + plot + 15);
      pen.save();
      pen.translate(10, top + plot / 2);
      pen.rotate(-Math.PI / 2);
      pen.fillText("← queries (tokens)", 0, 0);
      pen.restore();
      if (state.token !== null) {
        // The picked token's row, told by marks at the sides, so that nothing of it is hidden.
        const at = top + ((state.token + 0.5) / shown) * plot;
        pen.beginPath();
        pen.moveTo(margin, at); pen.lineTo(margin - 7, at - 4); pen.lineTo(margin - 7, at + 4); pen.fill();
        pen.beginPath();
        pen.moveTo(margin + plot, at); pen.lineTo(margin + plot + 7, at - 4); pen.lineTo(margin + plot + 7, at + 4); pen.fill();
      }
      showMapCaption(null);
      canvas.setAttribute("aria-label", `Block map, ${selectionName()}`);
    }

    function showMapCaption(event) {
      const caption = element("map-caption");
      const title = selectionName()[0].toUpperCase() + selectionName().slice(1);
      if (!event) { caption.replaceChildren(`${title}. `, make("span", "screen", "Point at a block to read it.")); return; }
      const [query, key] = blockAt(event);
      if (query === null) { showMapCaption(null); return; }
      const size = facts.mapSize;
      const range = (block) => size === 1 ? `${count(block)} “${nameOf(block)}”`
        : `${count(block * size)} – ${count(Math.min(tokenCount, (block + 1) * size) - 1)}`;
      caption.replaceChildren(make("bdi", "", `${title}: queries ${range(query)}, keys ${range(key)}: ${times(mapValues[query * facts.mapSide + key])}`));
    }

    function blockAt(event) {
      const canvas = element("one-map"), box = canvas.getBoundingClientRect();
      const margin = oneMap.margin * (box.width / (canvas.width / (window.devicePixelRatio || 1)));
      const plot = box.width - margin - 8;
      const column = Math.floor(((event.clientX - box.left - margin) / plot) * facts.mapSide);
      const row = Math.floor(((event.clientY - box.top - oneMap.top) / plot) * facts.mapSide);
      const isInside = row >= 0 && column >= 0 && row < facts.mapSide && column < facts.mapSide;
      return isInside ? [row, column] : [null, null];
    }

    // ---- Curves along the document.

    function showCurves() {
      const length = Math.ceil(tokenCount / facts.profileSize);
      const curves = [
        ["received mass", "mass", "massProfile", times, "× the mean token’s share", "logarithmic"],
        ["entropy", "entropy", "entropyProfile", round, "nats", "linear"],
        ["mean distance", "distance", "distanceProfile", round, "tokens", "linear"],
      ].filter(([, whole, profile]) => numbers(facts.isComplete ? whole : profile));
      element("profiles").hidden = curves.length === 0 || tokenCount < 2;
      if (element("profiles").hidden) return;
      element("profiles-text").textContent = `${selectionName()[0].toUpperCase() + selectionName().slice(1)}`
        + (facts.profileSize === 1 ? ", token by token." : `, means of blocks of ${count(facts.profileSize)} tokens.`);
      element("charts").replaceChildren(...curves.map(([name, whole, profile, write, unit, scale]) => {
        let values = meanOfRows(numbers(facts.isComplete ? whole : profile), facts.isComplete ? tokenCount : length, selectedHeads());
        if (facts.isComplete && facts.profileSize > 1) {
          const sums = new Float64Array(length), counts = new Uint32Array(length);
          values.forEach((value, token) => {
            if (Number.isFinite(value)) { sums[Math.floor(token / facts.profileSize)] += value; counts[Math.floor(token / facts.profileSize)]++; }
          });
          values = Float32Array.from(sums, (sum, block) => (counts[block] ? sum / counts[block] : NaN));
        }
        return chart(name, values, write, unit, scale);
      }));
    }

    function chart(name, values, write, unit, scale) {
      const box = make("div", "chart");
      box.append(make("h3", "", `${name} (${unit})`));
      const [width, height, left, bottom] = [360, 130, 46, 20];
      const drawing = (tag, attributes, parent, text) => {
        const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
        for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
        if (text !== undefined) node.textContent = text;
        parent.append(node);
        return node;
      };
      const svg = drawing("svg", { viewBox: `0 0 ${width} ${height + bottom}`, role: "img", "aria-label": `${name} along the document` }, box);
      const known = [...values].filter((value) => Number.isFinite(value) && (scale !== "logarithmic" || value > 0));
      if (!known.length) return box;
      let low = Math.min(...known), high = Math.max(...known);
      const isLogarithmic = scale === "logarithmic" && high > 4 * low;
      if (!isLogarithmic) low = Math.min(low, 0 <= low && low < high / 2 ? 0 : low);
      if (!(high > low)) { low -= 0.5; high += 0.5; }
      const share = (value) => isLogarithmic ? Math.log(Math.max(value, low) / low) / Math.log(high / low) : (value - low) / (high - low);
      const x = (place) => left + ((place + 0.5) / values.length) * (width - left);
      const y = (value) => 8 + (1 - share(value)) * (height - 8);
      for (const tick of [0, 0.5, 1]) {
        const value = isLogarithmic ? low * (high / low) ** tick : low + tick * (high - low);
        drawing("line", { class: "axis", x1: left, x2: width, y1: y(value), y2: y(value) }, svg);
        drawing("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, svg, write(value));
      }
      let path = "", isOpen = false;
      values.forEach((value, place) => {
        if (!Number.isFinite(value)) { isOpen = false; return; }
        path += `${isOpen ? "L" : "M"}${x(place).toFixed(2)} ${y(value).toFixed(2)}`;
        isOpen = true;
      });
      drawing("path", { class: "curve", d: path }, svg);
      if (state.token !== null) {
        const at = left + ((state.token + 0.5) / tokenCount) * (width - left);
        drawing("line", { class: "mark", x1: at, x2: at, y1: 8, y2: height }, svg);
      }
      for (const [at, anchor] of [[0, "start"], [0.5, "middle"], [1, "end"]]) {
        drawing("text", { x: left + at * (width - left), y: height + 15, "text-anchor": anchor }, svg,
          (at === 0 ? "token " : "") + count(Math.round(at * (tokenCount - 1))));
      }
      return box;
    }

    // ---- What stands still: the head of the page, scores, probes, and what the numbers are.

    function buildHead() {
      document.querySelector("h1").append(make("bdi", "", facts.document.replace(invisible, codeName)));
      const summary = element("summary");
      summary.append(make("bdi", "", facts.model.replace(invisible, codeName)),
        ` · ${count(tokenCount)} tokens · ${count(layerCount)} layers × ${count(headCount)} heads`);
      for (const note of facts.notes) element("notes").append(make("p", "note", note.replace(invisible, codeName)));
      if (facts.scores.length) {
        const section = element("scores");
        section.hidden = false;
        section.append(make("h2", "", "Scores"));
        const table = make("table", "bars");
        const most = Math.max(...facts.scores.map(([, score]) => Math.abs(score)), 1e-9);
        for (const [label, score] of facts.scores) {
          const row = table.insertRow();
          const name = row.insertCell();
          name.className = "name";
          name.append(make("bdi", "", label.replace(invisible, codeName)));
          name.title = label;
          const meter = make("div", "meter"), fill = make("i", score < 0 ? "less" : "");
          fill.style.width = (100 * Math.abs(score ?? 0)) / Math.max(1, most) + "%";
          meter.append(fill);
          row.insertCell().append(meter);
          row.append(make("td", "value", score === null ? "–" : score.toFixed(4)));
        }
        section.append(table);
      }
      facts.probes.forEach(([edit, what], index) => {
        element("probes").hidden = false;
        const values = meanOfRows(numbers("probe" + index), tokenCount, [0]);
        const known = [...values.keys()].filter((token) => Number.isFinite(values[token]));
        const order = known.sort((one, other) => Math.abs(values[other]) - Math.abs(values[one]) || one - other);
        const rows = order.slice(0, 12).map((token) => [token, values[token]]);
        const box = make("div");
        const title = make("h3");
        title.append(make("bdi", "", `${edit} one token: ${what}`.replace(invisible, codeName)));
        box.append(title);
        if (rows.length) box.append(bars(rows, round, { value: Math.abs(rows[0][1]) || 1, isSigned: true }, pick));
        box.append(make("p", "small", `The ${rows.length} largest of ${count(known.length)} tokens that were tried.`));
        element("probe-tables").append(box);
      });
      const lines = [
        "The numbers of this page are rounded for the eye, to 1 part in 250 of their scale; the exact ones are in the "
          + "safetensors file of the same run.",
        "Received mass is the sum of the weights that a token gets as a key; 1× is the mean over all tokens. Entropy is that of "
          + "a query’s weights, in nats: 0 looks at one key alone, ln n at n keys alike. Distance is the mean of |query − key|, in "
          + "tokens, by those weights.",
      ];
      if (facts.keysKept) {
        lines.push(`Of each query the ${facts.keysKept} keys with most weight are on the page`
          + (facts.keysKept < facts.keysPerQuery ? `, of ${facts.keysPerQuery} that were computed.` : "."));
      }
      if (facts.isComplete) lines.push(`Every layer, head and token is here, as it is up to ${count(facts.completeTokens)} tokens with that many heads.`);
      else {
        lines.push(`Beyond ${count(facts.completeTokens)} tokens with that many heads a page cannot hold everything. Received mass is here for every `
          + `token as the mean ${facts.keepsLayers ? "of each layer’s heads" : "of all layers and heads"}; keys, entropy, distance and largest `
          + `logit for ${count(queryCount)} queries, the chosen ones and others at even distances; each head’s received mass, entropy `
          + `and distance as means of blocks of ${count(facts.profileSize)} tokens.`);
      }
      if (facts.rollouts.length) lines.push("Rollout multiplies the layers’ mean weights, half of each kept for the token itself, from the last layer to the first.");
      for (const line of lines) element("about-list").append(make("li", "", line));
    }

    // ---- Choosing.

    function option(value, name) {
      const node = make("option", "", name);
      node.value = value;
      return node;
    }

    function buildControls() {
      element("measure").append(...measures.map((measure) => option(measure.id, measure.name)));
      element("layer").append(option(all, "all"), ...facts.layers.map((layer, row) => option(row, String(layer))));
      element("head").append(option(all, "all"), ...facts.heads.map((head, column) => option(column, String(head))));
      element("grid-measure").append(...gridMeasures.map((measure) => option(measure.id, measure.name)));
      state.measure = measures[0]?.id ?? "";
      state.gridMeasure = (gridMeasures.find((measure) => !measure.needsToken) ?? gridMeasures[0])?.id ?? "";
      element("grid-measure").value = state.gridMeasure;
      element("measure").addEventListener("change", (event) => { state.measure = event.target.value; shadeText(); });
      element("layer").addEventListener("change", (event) => select(Number(event.target.value), state.head));
      element("head").addEventListener("change", (event) => select(state.layer, Number(event.target.value)));
      element("grid-measure").addEventListener("change", (event) => { state.gridMeasure = event.target.value; showGrid(); });
      element("find").addEventListener("keydown", (event) => {
        if (event.key === "Enter") { event.preventDefault(); find(event.target.value); }
        if (event.key === "Escape") { event.target.value = ""; element("text").focus(); }
      });
      element("text").addEventListener("click", (event) => {
        const span = event.target.closest(".token");
        if (span && !String(getSelection())) pick(span.tokenIndex);
      });
      element("text").addEventListener("mouseover", (event) => {
        const span = event.target.closest(".token");
        const value = span && shadingValues ? shadingValues[span.tokenIndex] : NaN;
        element("hover").replaceChildren(make("bdi", "", span
          ? `${count(span.tokenIndex)} “${nameOf(span.tokenIndex)}”${Number.isFinite(value) ? ": " + shadingMeasure.write(value) : ""}` : ""));
      });
      let isWaiting = false;
      element("text").addEventListener("scroll", () => {
        if (isWaiting) return;
        isWaiting = true;
        requestAnimationFrame(() => { isWaiting = false; drawOverview(); });
      }, { passive: true });
      element("overview").addEventListener("click", (event) => {
        const box = element("overview").getBoundingClientRect();
        scrollTo(Math.min(tokenCount - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * tokenCount))));
      });
      element("all-maps").addEventListener("click", (event) => {
        const box = element("all-maps").getBoundingClientRect();
        const scale = element("all-maps").clientWidth / (thumbnail.margin + headCount * (thumbnail.size + thumbnail.gap));
        const step = (thumbnail.size + thumbnail.gap) * scale;
        const column = Math.floor((event.clientX - box.left - thumbnail.margin * scale) / step);
        const row = Math.floor((event.clientY - box.top - thumbnail.margin * scale) / step);
        if (row >= 0 && row < layerCount && column >= 0 && column < headCount) select(row, column);
      });
      element("one-map").addEventListener("mousemove", showMapCaption);
      element("one-map").addEventListener("mouseleave", () => showMapCaption(null));
      element("theme").addEventListener("click", turnTheme);
      element("help").addEventListener("click", () => element("keys").showModal());
    }

    function select(layer, head) {
      [state.layer, state.head] = [layer, head];
      element("layer").value = layer;
      element("head").value = head;
      showToken();
      shadeText();
      showGrid();
      drawOneMap();
      showCurves();
      speak(selectionName());
    }

    function pick(token) {
      const isFirst = state.token === null;
      state.token = token;
      if (isFirst && token !== null && numbers("topKeys")) state.gridMeasure = "looks";
      element("grid-measure").value = state.gridMeasure;
      shadeText();
      showToken();
      showGrid();
      drawOneMap();
      showCurves();
      if (token === null) { speak("no token picked"); return; }
      scrollTo(token);
      const looks = topKeys(token)[0];
      speak(`token ${token}, ${nameOf(token)}` + (looks ? `; looks most at token ${looks[0]}, ${nameOf(looks[0])}, ${percent(looks[1])}` : ""));
    }

    function speak(line) { element("spoken").textContent = line; }

    function find(wanted) {
      const text = wanted.trim();
      if (/^[\d,]+$/.test(text)) {
        const token = Number(text.replace(/,/g, ""));
        if (token < tokenCount) pick(token); else speak(`the last token is ${tokenCount - 1}`);
        return;
      }
      if (!text) return;
      // From the token behind the picked one round to it: a place where the texts of tokens in a row hold what is wanted.
      const needle = text.toLowerCase();
      let written = "";
      const starts = new Int32Array(tokenCount);
      for (let token = 0; token < tokenCount; token++) {
        written += leadOf(token);
        starts[token] = written.length;
        written += hasText ? facts.texts[token] : facts.pieces[pieceOf[token]];
      }
      const lower = written.toLowerCase();
      const from = state.token === null ? 0 : (starts[state.token + 1] ?? written.length);
      let at = lower.indexOf(needle, from);
      if (at < 0) at = lower.indexOf(needle);
      if (at < 0) { speak(`“${text}” is not in the document`); element("hover").textContent = `“${text}” is not in the document.`; return; }
      let [low, high] = [0, tokenCount - 1];
      while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (starts[middle] <= at) low = middle; else high = middle - 1;
      }
      pick(low);
    }

    /// The token nearest to the picked one on the line above (-1) or below (1).
    function tokenOnLine(direction) {
      const span = spanOf(state.token);
      if (!span) return state.token;
      const boxes = span.getClientRects();
      const box = direction < 0 ? boxes[0] : boxes[boxes.length - 1];
      const middle = (box.left + box.right) / 2;
      let best = state.token, bestLine = null, bestGap = Infinity;
      for (let token = state.token + direction; token >= 0 && token < tokenCount; token += direction) {
        fillChunk(chunkOf(token));
        const other = spanOf(token).getBoundingClientRect();
        const isFarther = direction < 0 ? other.bottom <= box.top + 4 : other.top >= box.bottom - 4;
        if (!isFarther) continue;
        if (bestLine === null) bestLine = other.top;
        if (Math.abs(other.top - bestLine) > other.height) break;
        const gap = Math.abs((other.left + other.right) / 2 - middle);
        if (gap < bestGap) [best, bestGap] = [token, gap];
      }
      return best;
    }

    function turnTheme() {
      const root = document.documentElement;
      const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = isDark ? "light" : "dark";
      showTheme();
    }
    function showTheme() {
      const root = document.documentElement;
      const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      element("theme").textContent = isDark ? "Light" : "Dark";
      element("theme").setAttribute("aria-label", isDark ? "change to light colours" : "change to dark colours");
      // Canvases do not follow the style by themselves.
      isGridOfMapsDrawn = false;
      drawOverview();
      if (isMapsNear) drawOneMap();
    }

    const clamp = (value, least, most) => Math.min(most, Math.max(least, value));
    const keys = {
      ArrowRight: () => pick(state.token === null ? 0 : clamp(state.token + 1, 0, tokenCount - 1)),
      ArrowLeft: () => pick(state.token === null ? 0 : clamp(state.token - 1, 0, tokenCount - 1)),
      ArrowUp: () => pick(state.token === null ? 0 : tokenOnLine(-1)),
      ArrowDown: () => pick(state.token === null ? 0 : tokenOnLine(1)),
      Home: () => pick(0),
      End: () => pick(tokenCount - 1),
      PageUp: () => pick(clamp((state.token ?? 0) - 256, 0, tokenCount - 1)),
      PageDown: () => pick(clamp((state.token ?? 0) + 256, 0, tokenCount - 1)),
      n: () => pick(nearestQuery(state.token ?? -1, 1)),
      p: () => pick(nearestQuery(state.token ?? 0, -1)),
      j: () => select(clamp(state.layer + 1, 0, layerCount - 1), state.head),
      k: () => select(clamp(state.layer - 1, 0, layerCount - 1), state.head),
      l: () => select(state.layer, clamp(state.head + 1, 0, headCount - 1)),
      h: () => select(state.layer, clamp(state.head - 1, 0, headCount - 1)),
      a: () => select(all, all),
      m: () => {
        const next = (measures.findIndex((measure) => measure.id === state.measure) + 1) % measures.length;
        setMeasure(measures[next].id);
      },
      w: () => setMeasure(state.measure === "looks" ? measures[0].id : "looks"),
      g: () => { element("find").focus(); element("find").select(); },
      t: turnTheme,
      Escape: () => { if (state.token !== null) pick(null); },
    };
    keys["/"] = keys.g;
    keys["?"] = () => element("keys").showModal();

    function setMeasure(id) {
      if (!measures.some((measure) => measure.id === id)) return;
      state.measure = id;
      element("measure").value = id;
      shadeText();
      speak("shaded by " + shadingMeasure.name);
    }

    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || element("keys").open) return;
      const target = event.target;
      if (target.closest("input, select, textarea")) return;
      const action = keys[event.key];
      // Home, End and the page keys scroll the page unless the text has the focus or a token is picked.
      const isScroll = /^(Home|End|Page|Arrow)/.test(event.key);
      if (!action || !measures.length || (isScroll && state.token === null && target !== element("text"))) return;
      event.preventDefault();
      action();
    });

    // ---- Printing: all of a short text; of a long one what is around the picked token.

    let isPrinting = false;
    addEventListener("beforeprint", () => {
      isPrinting = true;
      isGridOfMapsDrawn = false;
      drawOneMap();
      if (chunks.length === 1) return;
      const middle = chunks.indexOf(chunkOf(state.token ?? 0));
      const shown = chunks.slice(Math.max(0, middle - 4), middle + 5);
      for (const chunk of chunks) {
        if (shown.includes(chunk)) fillChunk(chunk);
        chunk.node.hidden = !shown.includes(chunk);
      }
      element("printed").textContent = `Printed: tokens ${count(shown[0].start)} – ${count(shown[shown.length - 1].end - 1)} of ${count(tokenCount)}.`;
    });
    addEventListener("afterprint", () => {
      isPrinting = false;
      isGridOfMapsDrawn = false;
      drawOneMap();
      for (const chunk of chunks) if (chunk.node) chunk.node.hidden = false;
    });

    // ---- Start. Maps and curves wait until they are near the view or the browser is idle.

    let isMapsNear = false;
    buildHead();
    buildControls();
    buildText();
    buildGrid();
    shadeText();
    showToken();
    showGrid();
    buildMaps();
    showTheme();
    const drawRest = () => {
      if (isMapsNear) return;
      isMapsNear = true;
      drawOneMap();
      showCurves();
      document.documentElement.dataset.state = "ready";
    };
    requestAnimationFrame(() => requestAnimationFrame(drawRest));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);
    let resizeTimer = 0;
    addEventListener("resize", () => {
      clearTimeout(resizeTimer);
      resizeTimer = setTimeout(() => { isGridOfMapsDrawn = false; drawOverview(); drawOneMap(); }, 150);
    });

    """#
