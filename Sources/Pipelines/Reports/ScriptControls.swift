// The page's script: the head of the page, its controls and keys, printing, and the start.

/// What a reader does, by mouse and by keys.
let scriptControls = #"""
    // ---- What stands still: the head of the page, scores, probes, and what the numbers are.

    function buildHead() {
      document.querySelector("h1").append(make("bdi", "", facts.document.replace(invisible, codeName)));
      const summary = element("summary");
      summary.append(make("bdi", "", facts.model.replace(invisible, codeName)),
        ` · ${many(tokenCount, "token")} · ${many(layerCount, "layer")} × ${many(headCount, "head")}`);
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
      const most = `${count(facts.completeTokens)} tokens with that many heads`;
      if (facts.isComplete) lines.push(`Every layer, head and token is here, as it is up to ${most}.`);
      else {
        lines.push(`Beyond ${most} a page cannot hold everything. Received mass is here for every token as the mean `
          + `${facts.keepsLayers ? "of each layer’s heads" : "of all layers and heads"}; keys, entropy, distance and largest logit `
          + `for ${count(queryCount)} queries, the chosen ones and others at even distances; each head’s received mass, entropy `
          + `and distance as means of blocks of ${count(facts.profileSize)} tokens.`);
      }
      if (facts.probes.length > 1) {
        lines.push("What a probe tells of attention is the mean of heads: received mass moved is the share of all received mass that "
          + "lies elsewhere once the token is edited, 0 to 1; entropy changed is the mean change of the tokens’ entropy.");
      }
      if (facts.rollouts.length) {
        lines.push("Rollout multiplies the layers’ mean weights, half of each kept for the token itself, from the last layer to "
          + "the first."
          + (facts.rollouts.length < facts.rolloutCount
            ? ` The page has room for the first ${facts.rollouts.length} of ${count(facts.rolloutCount)}.` : ""));
      }
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
        if (!span) { element("hover").replaceChildren(); return; }
        const token = span.tokenIndex, value = shadingValues ? shadingValues[token] : NaN;
        const written = Number.isFinite(value) ? ": " + shadingMeasure.write(value) : "";
        element("hover").replaceChildren(make("bdi", "", `${count(token)} “${nameOf(token)}”${written}`));
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
