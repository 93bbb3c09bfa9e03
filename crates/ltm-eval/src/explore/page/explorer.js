// The explorer: shows one document, and lets a person change what it shows. Pure functions first, then the page.
// Everything that is displayed is set as text, never as HTML.
"use strict";

const ltm = {
  // The state in the address: what is shown, by short names. Unknown or broken parts fall back to the default.
  start: { text: 0, step: null, latent: null, change: null, pair: 0, share: 0 },

  parseHash(hash) {
    const state = { ...ltm.start };
    for (const part of hash.replace(/^#/, "").split("&")) {
      const [key, value] = part.split("=");
      if (value === undefined || !(key in state)) continue;
      if (key === "change") state.change = decodeURIComponent(value);
      else if (/^\d+$/.test(value)) state[key] = Number(value);
      else if (key === "latent" && value === "all") state.latent = "all";
    }
    return state;
  },

  formatHash(state) {
    const parts = Object.entries(state).filter(([key, value]) => value !== ltm.start[key]);
    return "#" + parts.map(([key, value]) => `${key}=${encodeURIComponent(value)}`).join("&");
  },

  // A name for a change: prior, scale-0.5, resample, swap-2.
  changeName(change) {
    return [change.kind, change.factor, change.with].filter((x) => x !== undefined).join("-");
  },

  // The words of `b`, each with whether it is in a longest common subsequence with `a`.
  difference(a, b) {
    const [x, y] = [a, b].map((text) => text.split(/\s+/).filter(Boolean));
    const length = Array.from({ length: x.length + 1 }, () => new Array(y.length + 1).fill(0));
    for (let i = x.length - 1; i >= 0; i--) {
      for (let j = y.length - 1; j >= 0; j--) {
        length[i][j] = x[i] === y[j] ? length[i + 1][j + 1] + 1 : Math.max(length[i + 1][j], length[i][j + 1]);
      }
    }
    const words = [];
    for (let i = 0, j = 0; j < y.length; ) {
      if (i < x.length && x[i] === y[j]) (words.push({ word: y[j], same: true }), i++, j++);
      else if (i < x.length && length[i + 1][j] >= length[i][j + 1]) i++;
      else (words.push({ word: y[j], same: false }), j++);
    }
    return words;
  },

  // Latents `z` with one of them, or all, changed: the same arithmetic as the library's.
  changed(z, latent, change, about, texts) {
    const at = {
      prior: (i) => about.prior_mean[i],
      scale: (i) => about.prior_mean[i] + change.factor * (z[i] - about.prior_mean[i]),
      resample: (i) => about.prior_sample[i],
      swap: (i) => texts[change.with].mu[i],
    }[change.kind];
    return z.map((x, i) => (latent === null || Math.floor(i / about.dim) === latent ? at(i) : x));
  },

  // Where latents lie on the map's axes.
  project(map, mu) {
    return map.axes.map((axis) => axis.reduce((sum, x, i) => sum + x * (mu[i] - map.mean[i]), 0));
  },

  // The latents of a point of the map's plane.
  unproject(map, [x, y]) {
    return map.mean.map((mean, i) => mean + x * map.axes[0][i] + y * map.axes[1][i]);
  },

  // The index of the nearest of sorted or unsorted numbers.
  nearest(numbers, x) {
    return numbers.reduce((best, n, i) => (Math.abs(n - x) < Math.abs(numbers[best] - x) ? i : best), 0);
  },

  // A safetensors file of f32 tensors: `{ name: { shape, data } }`.
  safetensors(tensors) {
    const header = {};
    let end = 0;
    for (const [name, { shape, data }] of Object.entries(tensors)) {
      header[name] = { dtype: "F32", shape, data_offsets: [end, (end += 4 * data.length)] };
    }
    let json = JSON.stringify(header);
    json += " ".repeat((8 - (new TextEncoder().encode(json).length % 8)) % 8);
    const head = new TextEncoder().encode(json);
    const file = new Uint8Array(8 + head.length + end);
    const view = new DataView(file.buffer);
    view.setBigUint64(0, BigInt(head.length), true);
    file.set(head, 8);
    let at = 8 + head.length;
    for (const { data } of Object.values(tensors)) {
      for (const x of data) (view.setFloat32(at, x, true), (at += 4));
    }
    return file;
  },

  // What a latent carries: facts read from it better than by chance by more than three standard errors, best first.
  carries(facts, latent) {
    const above = (fact) => {
      const [p, chance] = [fact.accuracy[latent], fact.chance];
      return p - chance - 3 * Math.sqrt(Math.max(p * (1 - p), chance * (1 - chance)) / fact.stories);
    };
    return (facts ?? []).filter((f) => above(f) > 0).sort((a, b) => above(b) - above(a));
  },
};
if (typeof window !== "undefined") window.ltm = ltm;

// The page.
function explorer(doc, root) {
  const $ = (id) => document.getElementById(id);
  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElementNS(SVG.has(tag) ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml", tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (value !== false && value !== null) node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.map((child) => (typeof child === "number" ? String(child) : child)));
    return node;
  };
  const SVG = new Set(["svg", "circle", "path", "text", "line", "rect", "g"]);
  const nats = (x, digits = 1) => `${x < 0 ? "−" : ""}${Math.abs(x).toFixed(digits)}`;
  const live = root.dataset.live;
  let state = ltm.parseHash(location.hash.length > 1 ? location.hash : (root.dataset.state ?? ""));
  let asked = 0;

  const text = () => doc.texts[Math.min(state.text, doc.texts.length - 1)];
  const steps = () => text().steps;
  const step = () => Math.min(state.step ?? steps().length - 1, steps().length - 1);
  const set = (change) => {
    state = { ...state, ...change };
    history.replaceState(null, "", ltm.formatHash(state));
    show();
  };

  // Words that differ from another text are marked.
  const marked = (words) =>
    words.flatMap(({ word, same }) => [same ? document.createTextNode(word) : make("mark", {}, word), " "]);

  function showTexts() {
    const button = (t, i) =>
      make("button", { class: "text", "aria-pressed": String(i === state.text), onclick: () => set({ text: i, step: null, latent: null, change: null }) },
        make("b", {}, i + 1), " ", t.text);
    $("texts").replaceChildren(...doc.texts.map(button));
  }

  function showLedger() {
    const { cost, saved, bound, without, standard_error, samples, protocol } = text().ledger;
    const item = (name, value, note) => make("div", { title: note }, make("span", {}, name), make("b", {}, value));
    const net = saved - cost;
    $("ledger").replaceChildren(
      item("latents cost", nats(cost), "KL of the posterior from the prior, in nats"),
      item("and save", nats(saved), "nats of the text with latents of the prior's mean, minus nats with those of the posterior"),
      item(net >= 0 ? "they pay" : "they lose", nats(Math.abs(net)), "saved minus cost"),
      item("bound", `${nats(bound)} ± ${nats(standard_error)}`, `${protocol}, mean of ${samples} samples and its standard error`),
      item("without", nats(without), "with latents of the prior's mean"),
    );
  }

  function showFit() {
    const [all, now] = [steps(), step()];
    const scrub = $("scrub");
    (scrub.max = all.length - 1), (scrub.value = now);
    const frame = all[now];
    const shown = all.slice(0, now + 1).reverse().find((s) => s.decoded !== null);
    const kl = frame.kl_per_layer.reduce((a, b) => a + b, 0);
    $("step").textContent = `step ${frame.step} of ${all.length - 1}: NLL ${nats(frame.nll)}, KL ${nats(kl)}, bound ${nats(frame.bound)} nats`;
    $("at-step").replaceChildren(...marked(ltm.difference(text().text, shown.decoded)));
    const [w, h] = [600, 90];
    const max = Math.max(...all.map((s) => s.bound), 1);
    const x = (i) => 6 + ((w - 12) * i) / Math.max(all.length - 1, 1);
    const line = (of, name) =>
      make("path", { class: name, d: all.map((s, i) => `${i ? "L" : "M"}${x(i)} ${h - 6 - ((h - 12) * of(s)) / max}`).join("") });
    const sum = (s) => s.kl_per_layer.reduce((a, b) => a + b, 0);
    $("curve").replaceChildren(
      line((s) => s.bound, "bound"), line((s) => s.nll, "nll"), line(sum, "kl"),
      make("line", { x1: x(now), x2: x(now), y1: 0, y2: h, class: "now" }),
    );
  }

  function showTokens() {
    const most = Math.max(1, ...text().tokens.map((t) => Math.abs(t.without.nll - t.with.nll)));
    const token = (t) => {
      const saved = t.without.nll - t.with.nll;
      const share = Math.min(1, Math.abs(saved) / most);
      const colour = saved >= 0 ? "var(--save)" : "var(--lose)";
      const open = () => showCandidates(t);
      const word = t.text.trimStart();
      const style = `background: color-mix(in srgb, ${colour} ${Math.round(70 * share)}%, transparent)`;
      const span = make("span", { class: "token", tabindex: "0", style, onmouseenter: open, onfocus: open }, word || t.text);
      return word ? [t.text.slice(0, t.text.length - word.length), span] : [span];
    };
    $("tokens").replaceChildren(...text().tokens.flatMap(token));
    const best = text().tokens.reduce((a, b) => (b.without.nll - b.with.nll > a.without.nll - a.with.nll ? b : a));
    showCandidates(best);
  }

  function showCandidates(t) {
    const list = (name, side) =>
      make("div", {}, make("h3", {}, `${name}: ${nats(side.nll, 2)} nats`),
        ...side.top.map(({ text, p }) => {
          const is = text.trim() === t.text.trim();
          return make("div", { class: is ? "bar own" : "bar" }, make("i", { style: `width:${100 * p}%` }), make("span", {}, text), make("span", {}, `${(100 * p).toFixed(p < 0.1 ? 1 : 0)} %`));
        }));
    $("candidates").replaceChildren(make("p", {}, "“", make("b", {}, t.text.trim()), "” and what else the model expected there"), list("with latents", t.with), list("without", t.without));
  }

  const latentName = (j) => {
    const { n_layers, latents_per_layer: per } = doc.about;
    const parts = [n_layers > 1 && `layer ${Math.floor(j / per) + 1}`, per > 1 && `latent ${(j % per) + 1}`];
    return parts.filter(Boolean).join(", ") || "the latent";
  };

  function showLatents() {
    const { n_layers, latents_per_layer: per } = doc.about;
    const kl = text().kl_per_latent ?? text().kl_per_layer.flatMap((x) => new Array(per).fill(x / per));
    const max = Math.max(...kl, 1e-9);
    const cell = (j) =>
      make("button", { class: "latent", "aria-pressed": String(state.latent === j), "aria-label": `${latentName(j)}, KL ${nats(kl[j])} nats`, style: `--share:${Math.round((100 * kl[j]) / max)}%`, onclick: () => set({ latent: j, change: state.change ?? "prior" }) },
        make("b", {}, nats(kl[j])), make("span", {}, ltm.carries(doc.facts, j).slice(0, 3).map((f) => factName(f.fact)).join(", ") || "nats"));
    const row = (l) => make("div", { class: "row" }, make("span", {}, `layer ${l + 1}`), ...Array.from({ length: per }, (_, j) => cell(l * per + j)));
    $("grid").replaceChildren(...Array.from({ length: n_layers }, (_, l) => row(l)),
      make("button", { "aria-pressed": String(state.latent === "all"), onclick: () => set({ latent: "all", change: state.change ?? "prior" }) }, "all latents"));
    const kinds = changeKinds();
    $("changes").replaceChildren(...kinds.map(({ name, label }) =>
      make("button", { "data-change": name, disabled: state.latent === null, "aria-pressed": String(state.latent !== null && state.change === name), onclick: () => set({ change: name }) }, label)));
    showChanged();
  }

  // Offline what is precomputed, and with a server what can be computed.
  function changeKinds() {
    const swaps = doc.texts.flatMap((_, i) => (i === state.text ? [] : [{ kind: "swap", with: i }]));
    const changes = [{ kind: "prior" }, { kind: "scale", factor: 0.5 }, { kind: "scale", factor: 2 }, { kind: "resample" }, ...swaps];
    const labels = { prior: "knock out", "scale-0.5": "halve", "scale-2": "double", resample: "resample" };
    return changes.map((change) => {
      const name = ltm.changeName(change);
      return { change, name, label: labels[name] ?? `swap with text ${change.with + 1}` };
    });
  }

  function showChanged() {
    const kind = changeKinds().find(({ name }) => name === state.change);
    if (state.latent === null || !kind) {
      $("changed").replaceChildren(text().decoded);
      $("changed-note").textContent = "decoded with the latents as they are; choose a latent above, or press L";
      return;
    }
    const latent = state.latent === "all" ? null : state.latent;
    const who = latent === null ? "all latents" : latentName(latent);
    const display = (found) => {
      const more = found.nll - text().tokens.reduce((sum, t) => sum + t.with.nll, 0);
      const words = ltm.difference(text().decoded, found.text);
      $("changed").replaceChildren(...marked(words));
      $("changed-note").textContent = `${who}: ${kind.label}. ${words.filter((w) => !w.same).length} words differ; the original text costs ${nats(Math.abs(more))} nats ${more >= 0 ? "more" : "less"}`;
    };
    const known = (doc.changes[state.text] ?? []).find((c) => c.latent === latent && ltm.changeName(c.change) === kind.name);
    if (known) display(known);
    else if (live) {
      const z = ltm.changed(text().mu, latent, kind.change, doc.about, doc.texts);
      ask("/decode", { z, text: text().text }).then((found) => found && display(found));
    } else {
      $("changed").replaceChildren();
      $("changed-note").textContent = "not in this file";
    }
  }

  const factName = (fact) => {
    const [variable, column] = fact.split(".");
    if (column === "kind") return variable;
    return column.length > 2 ? column : `${variable} ${column}`;
  };

  function showFacts() {
    $("facts-section").hidden = !doc.facts;
    if (!doc.facts) return;
    const latents = doc.facts[0]?.accuracy.map((_, j) => j) ?? [];
    const share = (p, chance) => make("td", { style: `background: color-mix(in srgb, var(--save) ${Math.round(70 * Math.max(0, (p - chance) / (1 - chance)))}%, transparent)` }, `${(100 * p).toFixed(0)} %`);
    const head = make("tr", {}, make("th", {}, "fact"), make("th", {}, "chance"), ...latents.map((j) => make("th", {}, latentName(j))), make("th", {}, "all"));
    const row = (f) => make("tr", {}, make("td", {}, factName(f.fact)), make("td", {}, `${(100 * f.chance).toFixed(0)} %`), ...f.accuracy.map((p) => share(p, f.chance)), share(f.all, f.chance));
    $("facts").replaceChildren(make("thead", {}, head), make("tbody", {}, ...doc.facts.map(row)));
    $("facts-note").textContent = `Read off the posterior's mean by the nearest centroid, in ${Math.max(...doc.facts.map((f) => f.stories))} stories that the centroids were not made of. Chance: always the most frequent word.`;
  }

  const [W, H, PAD] = [600, 400, 18];
  function showMap() {
    const map = doc.map;
    $("map-section").hidden = !map || !map.grid.x.length;
    if ($("map-section").hidden) return;
    const { x: xs, y: ys } = map.grid;
    const scale = (at, [min, max], size) => PAD + ((size - 2 * PAD) * (at - min)) / (max - min || 1);
    const [rx, ry] = [[xs[0], xs.at(-1)], [ys[0], ys.at(-1)]];
    const place = ([x, y]) => [scale(x, rx, W), H - scale(y, ry, H)];
    const dot = (p, i) => {
      const [cx, cy] = place(p.at);
      return make("circle", { cx, cy, r: 3, "data-place": i });
    };
    const own = doc.texts.map((t, i) => {
      const [x, y] = place(ltm.project(map, t.mu));
      return make("g", { class: i === state.text ? "own" : "demo" }, make("circle", { cx: x, cy: y, r: 9 }), make("text", { x, y: y + 4 }, i + 1));
    });
    const cursor = make("circle", { class: "cursor", r: 5, cx: -9, cy: -9 });
    const svg = $("map");
    svg.replaceChildren(...map.places.map(dot), ...own, cursor);
    const point = (event) => {
      const box = svg.getBoundingClientRect();
      const [px, py] = [((event.clientX - box.left) * W) / box.width, ((event.clientY - box.top) * H) / box.height];
      const back = (at, [min, max], size) => min + ((at - PAD) * (max - min)) / (size - 2 * PAD);
      decodeAt([back(px, rx, W), back(H - py, ry, H)], place, cursor);
    };
    svg.onpointermove = point;
    svg.onpointerdown = point;
    $("map-note").textContent = `${map.places.length} held-out texts by their posteriors' means, on the two axes of the largest variance (${(100 * map.shares[0]).toFixed(0)} % and ${(100 * map.shares[1]).toFixed(0)} % of it). Numbers are the texts above.`;
  }

  function decodeAt(at, place, cursor) {
    const map = doc.map;
    const [i, j] = [ltm.nearest(map.grid.x, at[0]), ltm.nearest(map.grid.y, at[1])];
    const snapped = live ? at : [map.grid.x[i], map.grid.y[j]];
    const [cx, cy] = place(snapped);
    cursor.setAttribute("cx", cx), cursor.setAttribute("cy", cy);
    const display = (decoded) => $("map-text").replaceChildren(decoded);
    display(map.grid.decoded[j * map.grid.x.length + i]);
    if (live) ask("/decode", { z: ltm.unproject(map, at) }).then((found) => found && display(found.text));
    const far = (p) => (p.at[0] - at[0]) ** 2 + (p.at[1] - at[1]) ** 2;
    const near = map.places.reduce((best, p, k) => (far(p) < far(map.places[best]) ? k : best), 0);
    const names = [near, ...map.places[near].neighbours.slice(0, 3)];
    $("neighbours").replaceChildren(...names.map((k) => make("li", {}, map.places[k].text)));
    for (const circle of $("map").querySelectorAll("[data-place]")) circle.classList.toggle("near", names.includes(Number(circle.dataset.place)));
  }

  function showBetween() {
    $("between-section").hidden = !doc.between.length;
    if (!doc.between.length) return;
    const pair = doc.between[Math.min(state.pair, doc.between.length - 1)];
    const at = Math.min(state.share, pair.decoded.length - 1);
    $("pair").replaceChildren(...doc.between.map((b, i) => make("option", { value: i, selected: b === pair }, `text ${b.from + 1} to text ${b.to + 1}`)));
    ($("share").max = pair.decoded.length - 1), ($("share").value = at);
    $("share-note").textContent = `${Math.round((100 * at) / (pair.decoded.length - 1))} %`;
    $("between").replaceChildren(...marked(ltm.difference(pair.decoded[Math.max(at - 1, 0)], pair.decoded[at])));
  }

  function show() {
    state.text = Math.min(state.text, doc.texts.length - 1);
    for (const part of [showTexts, showLedger, showFit, showTokens, showLatents, showMap, showBetween, showFacts]) part();
  }

  // Asks the server; of answers that overtake each other the last question's counts.
  // A server that wants a key is asked again with the one that is typed, which is kept as long as the page is open.
  let password = null;
  async function post(path, body) {
    const headers = { "content-type": "application/json", ...(password && { authorization: "Bearer " + password }) };
    const answer = await fetch(live + path, { method: "POST", headers, body: JSON.stringify({ model: doc.about.name, ...body }) });
    if (answer.status !== 401) return answer;
    password = window.prompt("The server's key:");
    return password ? post(path, body) : answer;
  }

  async function ask(path, body) {
    const own = ++asked;
    try {
      const answer = await post(path, body);
      const found = await answer.json();
      if (!answer.ok) throw new Error(found.error?.message ?? answer.statusText);
      return own === asked ? found : null;
    } catch (error) {
      $("message").textContent = String(error.message ?? error);
      return null;
    }
  }

  async function fit(event) {
    event.preventDefault();
    $("message").textContent = "thinking …";
    const found = await ask("", { text: $("own-text").value, seed: 0 });
    if (!found) return;
    $("message").textContent = "";
    doc.texts.push(found), doc.changes.push([]);
    set({ text: doc.texts.length - 1, step: 0, latent: null, change: null });
    // The posterior forms: the steps one after another, unless somebody scrubs.
    for (let i = 1; i < found.steps.length && state.step === i - 1; i++) {
      await new Promise((done) => setTimeout(done, 80));
      if (state.step === i - 1) set({ step: i });
    }
  }

  function save(name, content, type) {
    const url = URL.createObjectURL(new Blob([content], { type }));
    make("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }

  // This page with everything that it shows now, for a place without a server.
  function offline() {
    const copy = document.documentElement.cloneNode(true);
    copy.removeAttribute("data-live");
    copy.dataset.state = ltm.formatHash(state);
    copy.querySelector("#data").textContent = JSON.stringify(doc).replaceAll("<", "\\u003c");
    return "<!doctype html>\n" + copy.outerHTML;
  }

  // The text, its ledger and its latents as a picture.
  function picture() {
    const canvas = make("canvas", { width: 1200, height: 630 });
    const c = canvas.getContext("2d");
    const style = getComputedStyle(root);
    const colour = (name) => style.getPropertyValue(name).trim();
    (c.fillStyle = colour("--page")), c.fillRect(0, 0, 1200, 630);
    (c.fillStyle = colour("--ink")), (c.font = "bold 34px sans-serif"), c.fillText(doc.about.name, 40, 60);
    c.font = "24px sans-serif";
    let [x, y] = [40, 120];
    const most = Math.max(1, ...text().tokens.map((t) => Math.abs(t.without.nll - t.with.nll)));
    for (const t of text().tokens) {
      const width = c.measureText(t.text).width;
      if (x + width > 1160) (x = 40), (y += 38);
      const saved = t.without.nll - t.with.nll;
      (c.globalAlpha = (0.7 * Math.abs(saved)) / most), (c.fillStyle = colour(saved >= 0 ? "--save" : "--lose")), c.fillRect(x, y - 26, width, 34);
      (c.globalAlpha = 1), (c.fillStyle = colour("--ink")), c.fillText(t.text, x, y);
      x += width;
    }
    const { cost, saved, bound, standard_error } = text().ledger;
    c.fillText(`latents cost ${nats(cost)} nats and save ${nats(saved)}; bound ${nats(bound)} ± ${nats(standard_error)}`, 40, 590);
    return new Promise((done) => canvas.toBlob(done, "image/png"));
  }

  function tensors() {
    const { mu, log_var } = text();
    const shape = [mu.length / doc.about.dim, doc.about.dim];
    return ltm.safetensors({ mu: { shape, data: mu }, log_var: { shape, data: log_var } });
  }

  function key(event) {
    if (event.target.matches("textarea, input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    const n = doc.about.n_layers * doc.about.latents_per_layer;
    const keys = {
      ArrowLeft: () => set({ step: Math.max(0, step() - 1) }),
      ArrowRight: () => set({ step: Math.min(steps().length - 1, step() + 1) }),
      l: () => set({ latent: state.latent === null || state.latent === "all" ? 0 : (state.latent + 1) % n, change: state.change ?? "prior" }),
      a: () => set({ latent: "all", change: state.change ?? "prior" }),
      k: () => set({ latent: state.latent ?? 0, change: "prior" }),
      h: () => set({ latent: state.latent ?? 0, change: "scale-0.5" }),
      d: () => set({ latent: state.latent ?? 0, change: "scale-2" }),
      r: () => set({ latent: state.latent ?? 0, change: "resample" }),
      Escape: () => set({ latent: null, change: null }),
    };
    const chosen = /^[1-9]$/.test(event.key) && Number(event.key) <= doc.texts.length;
    if (chosen) set({ text: Number(event.key) - 1, step: null, latent: null, change: null });
    else if (keys[event.key.length === 1 ? event.key.toLowerCase() : event.key]) keys[event.key.length === 1 ? event.key.toLowerCase() : event.key]();
    else return;
    event.preventDefault();
  }

  $("fit").hidden = !live;
  $("fit").addEventListener("submit", fit);
  $("scrub").addEventListener("input", (event) => set({ step: Number(event.target.value) }));
  $("pair").addEventListener("change", (event) => set({ pair: Number(event.target.value), share: 0 }));
  $("share").addEventListener("input", (event) => set({ share: Number(event.target.value) }));
  $("save-html").addEventListener("click", () => save("explorer.html", offline(), "text/html"));
  $("save-png").addEventListener("click", () => picture().then((png) => save("explorer.png", png, "image/png")));
  $("save-safetensors").addEventListener("click", () => save("posterior.safetensors", tensors(), "application/octet-stream"));
  document.addEventListener("keydown", key);
  addEventListener("hashchange", () => ((state = ltm.parseHash(location.hash)), show()));
  show();
}

if (typeof document !== "undefined" && document.getElementById("data")) {
  explorer(JSON.parse(document.getElementById("data").textContent), document.documentElement);
}
