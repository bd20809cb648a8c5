// The page's script: layers and heads, block maps, and curves along the document.

/// The pictures of all heads and of the chosen one.
let scriptHeads = #"""
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
      const legend = element("grid-legend");
      if (fitted) showLegend(legend, measure.unit ?? "", fitted, measure.unit ? round : measure.write, "", rampColours());
      else legend.replaceChildren(make("span", "", measure.needsToken ? "Pick a token of which keys are kept." : "No values."));
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
      const least = maps.meaning[low];
      const range = Math.log(Math.max(maps.meaning[high], least * 1.01) / least);
      mapFit = {
        place: (value) => (value > 0 ? clamp(Math.log(value / least) / range, 0, 1) : 0),
        at: (share) => least * Math.exp(share * range),
        scale: "logarithmic",
      };
      for (let code = 0; code < 256; code++) mapShares[code] = mapFit.place(maps.meaning[code]);
      showLegend(element("map-legend"), "mean weight", mapFit, times,
        "× the weight of a query that sees all keys alike; darkest: that or less", rampColours());
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
      const rough = Math.max(1, tokenCount / 4);
      const power = 10 ** Math.floor(Math.log10(rough));
      const step = [10, 5, 2.5, 2, 1].map((factor) => factor * power).find((one) => Number.isInteger(one) && one <= rough) ?? 1;
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
      const value = times(mapValues[query * facts.mapSide + key]);
      caption.replaceChildren(make("bdi", "", `${title}: queries ${range(query)}, keys ${range(key)}: ${value}`));
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
            const block = Math.floor(token / facts.profileSize);
            if (Number.isFinite(value)) { sums[block] += value; counts[block]++; }
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
      const svg = drawing("svg",
        { viewBox: `0 0 ${width} ${height + bottom}`, role: "img", "aria-label": `${name} along the document` }, box);
      const known = [...values].filter((value) => Number.isFinite(value) && (scale !== "logarithmic" || value > 0));
      if (!known.length) return box;
      let low = Math.min(...known), high = Math.max(...known);
      const isLogarithmic = scale === "logarithmic" && high > 4 * low;
      if (!isLogarithmic) low = Math.min(low, 0 <= low && low < high / 2 ? 0 : low);
      if (!(high > low)) { low -= 0.5; high += 0.5; }
      const share = (value) => isLogarithmic
        ? Math.log(Math.max(value, low) / low) / Math.log(high / low) : (value - low) / (high - low);
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


    """#
