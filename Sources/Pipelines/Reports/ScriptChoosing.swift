// The page's script: what is chosen, what it selects, and the scales of that.

/// The state of the page, and values with their scales.
let scriptChoosing = #"""
    // ---- The state, and what it selects.

    const state = { token: null, layer: all, head: all, measure: "", gridMeasure: "" };

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
      id: "probe" + index, name: `probe: ${edit}, ${what}`.replace(invisible, codeName), write: round, scale: "signed", unit: what,
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


    """#
