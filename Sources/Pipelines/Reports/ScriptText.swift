// The page's script: the text, the strip over it, and the picked token.

/// The document, of which only what is near the view has elements, and its picked token.
let scriptText = #"""
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
        const { name, selection, tick, write, unit } = shadingMeasure;
        showLegend(legend, `${name}, ${selection()}`, shading, tick ?? write, unit, shadeColours(shading.scale === "signed"));
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
          const known = Array.from(values.keys()).filter((token) => Number.isFinite(values[token]));
          known.sort((one, other) => values[other] - values[one] || one - other);
          const rows = known.slice(0, 10).map((key) => [key, values[key]]);
          if (rows.length) {
            section.append(make("h3", "", `Most mass received, ${mass.selection()}`),
              bars(rows, times, { value: rows[0][1] }, pick));
          }
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
      facts.probes.forEach(([edit, what], index) => {
        const value = meanOfRows(numbers("probe" + index), tokenCount, [0])[token];
        if (Number.isFinite(value)) add(`probe: ${edit}, ${what}`.replace(invisible, codeName), round(value));
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
          section.append(make("p", "small",
            `The mean of what each head’s ${facts.keysKept} largest weights tell: at least this much.`));
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


    """#
