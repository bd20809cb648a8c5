// The page's script: reading what the page holds, and writing it for eyes.

/// Facts, lists of numbers, text of strangers, and numbers in words.
let scriptReading = #"""

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
    const clamp = (value, least, most) => Math.min(most, Math.max(least, value));

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
    const invisible = new RegExp(
      "[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u00ad\\u061c\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u206f"
        + "\\ufeff\\ufff9-\\ufffb\\u{e0000}-\\u{e007f}]", "gu");
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
    const many = (value, name) => `${count(value)} ${name}${value === 1 ? "" : "s"}`;
    function round(value) {
      if (!Number.isFinite(value)) return "–";
      if (value < 0) return "−" + round(-value);
      if (value >= 1000) return count(Math.round(value));
      if (value >= 100) return value.toFixed(0);
      if (value >= 10) return value.toFixed(1);
      if (value >= 0.1 || value === 0) return value.toFixed(value === 0 ? 0 : 2);
      return value >= 0.0001 ? String(Number(value.toPrecision(2))) : value.toExponential(0).replace("-", "−");
    }
    const percent = (value) =>
      !Number.isFinite(value) ? "–" : value >= 0.1 ? (100 * value).toFixed(0) + "%" : value >= 0.001
        ? (100 * value).toFixed(1) + "%" : value > 0 ? "< 0.1%" : "0%";
    const times = (value) => (Number.isFinite(value) ? round(value) + "×" : "–");
    // With their units, where a number stands alone; legends tell the unit once.
    const natural = (value) => round(value) + " nats";
    const far = (value) => round(value) + (value === 1 ? " token" : " tokens");


    """#
