"use strict";
// All text comes from data: it is only ever set as text, never as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const main = document.getElementById("main"), query = document.getElementById("query");

function el(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  for (const child of children) if (child !== null) element.append(child);
  return element;
}
const number = (x, digits = 3) => (x === null || x === undefined ? "\u2013" : x.toFixed(digits));
const link = (id) => el("a", { href: "#latent/" + id }, String(id));

function label(latent) {
  if (!latent) return "never fires";
  const parts = [];
  for (const [kind, name] of [[0, ""], [1, "after "], [2, "near "]]) {
    const words = latent.terms.filter((t) => t[1] === kind).map((t) => t[0]);
    if (words.length) parts.push(name + words.join(", "));
  }
  return parts.join("; ") || "no words";
}

function table(headings, rows) {
  const head = el("tr", null, ...headings.map((h) => el("th", { scope: "col" }, h)));
  const body = rows.map((row) =>
    el("tr", null, ...row.map((cell) => {
      const isNumber = typeof cell === "string" && /^[-+\u2013]?[\d.]*(e-?\d+)?$/.test(cell);
      return el("td", isNumber ? { class: "n" } : null, cell);
    })));
  return el("table", null, el("thead", null, head), el("tbody", null, ...body));
}

function strip(context, largest) {
  const [, peak, ids, fired] = context, at = new Map(fired);
  const line = el("span", { class: "strip", dir: "auto" });
  ids.forEach((id, i) => {
    const a = at.get(i) || 0, share = largest > 0 ? a / largest : 0;
    const attributes = { title: a.toFixed(2) };
    if (a > 0) attributes.style = `background:rgba(230,120,0,${(0.12 + 0.6 * share).toFixed(2)})`;
    if (i === peak) attributes.class = "peak";
    line.append(el("span", attributes, data.pieces[id]));
  });
  return line;
}

function bars(values, names) {
  const largest = Math.max(...values, 1e-9);
  const rows = values.map((v, i) => {
    const bar = el("span", { class: "bar", style: `width:${((10 * v) / largest).toFixed(2)}em` });
    return el("div", { title: String(v) }, el("span", { class: "name" }, names[i]), bar);
  });
  return el("div", { class: "bars" }, ...rows);
}

function showLatent(id) {
  const latent = data.latents[id];
  main.replaceChildren();
  if (latent === undefined) {
    main.append(el("p", null, `There is no latent ${id}: this SAE has 0 to ${data.latents.length - 1}.`));
    return;
  }
  main.append(el("h2", null, `Latent ${id}: ${label(latent)}`));
  const own = data.table ? data.table.features.filter((f) => f.latent === id) : [];
  if (own.length) main.append(el("h3", null, "In the feedback"), featureRows(own));
  if (!latent) return;
  for (const [text, source] of latent.given) main.append(el("p", { dir: "auto" }, `${source} says: ${text}`));
  const held = latent.auroc === null ? "not known" : number(latent.auroc, 2);
  main.append(
    el("p", null, `The label tells held-out places where it fires: AUROC ${held}. It fires at ` +
      `${latent.n} tokens (${(100 * latent.density).toFixed(3)}%).`),
    el("h3", null, "Contexts"),
    table(["kind", "activation", "text"], latent.contexts.map((c) => [
      c[0], number((new Map(c[3])).get(c[1]) || 0, 2), strip(c, latent.quantiles[12]),
    ])),
    el("h3", null, "How strongly it fires"),
    bars(latent.histogram, latent.histogram.map((_, i) =>
      number(((i + 1) * latent.quantiles[12]) / latent.histogram.length, 1))),
    el("h3", null, "Where in the text, by tokens before"),
    bars(latent.places, data.places.map(String)),
    el("h3", null, "Fires together with"), neighbours(latent.together),
    el("h3", null, "Writes like"), neighbours(latent.alike),
    el("h3", null, "Tokens it raises and lowers"),
    el("p", { dir: "auto" }, "raises " + latent.raises.map((i) => JSON.stringify(data.pieces[i])).join(" ")),
    el("p", { dir: "auto" }, "lowers " + latent.lowers.map((i) => JSON.stringify(data.pieces[i])).join(" ")),
  );
}

function neighbours(pairs) {
  return table(["latent", "score", "label"],
    pairs.map(([id, score]) => [link(id), number(score, 2), label(data.latents[id])]));
}

function featureRows(features) {
  return table(
    ["perspective", "latent", "label", "score", "false sign", "stability", "foretells", "answers"],
    features.map((f) => [
      f.perspective, link(f.latent), label(data.latents[f.latent]), number(f.score, 2),
      f.false_sign_rate === null ? "\u2013" : f.false_sign_rate.toPrecision(2),
      number(f.stability, 2), f.gain ? number(f.gain.estimate) : "\u2013",
      f.alone && f.alone.gain ? number(f.alone.gain.estimate) : "\u2013",
    ]));
}

function showTable() {
  main.replaceChildren(el("p", { class: "lead" }, data.sentence));
  if (!data.table) return;
  main.append(featureRows(data.table.features));
  for (const [names, share] of Object.entries(data.table.overlap)) {
    main.append(el("p", null, `${names}: ${(100 * share.same).toFixed(0)}% shared with the same ` +
      `sign, ${(100 * share.opposite).toFixed(0)}% with opposite signs`));
  }
  for (const f of data.table.features) {
    main.append(el("h3", null, `${f.perspective}, `, link(f.latent)));
    const texts = [...f.contexts.map((c) => ["for", c]), ...f.against.map((c) => ["against", c])];
    main.append(table(["", "activation", "text", "whose"], texts.map(([kind, c]) => [
      kind, number(c.activation, 2), el("span", { class: "strip", dir: "auto" }, c.text),
      c.perspectives.join(", "),
    ])));
  }
}

let lookup = null;
const WORD = /[\p{L}\p{N}]+/gu;
const words = (text) => text.toLowerCase().match(WORD) || [];
const stem = (w) => (/[^us]s$/.test(w) ? w.slice(0, -1) : w);

function built() {
  if (lookup) return lookup;
  lookup = new Map();
  const add = (word, id, weight) => {
    const key = stem(word);
    if (!lookup.has(key)) lookup.set(key, new Map());
    const weights = lookup.get(key);
    weights.set(id, (weights.get(id) || 0) + weight);
  };
  data.latents.forEach((latent, id) => {
    if (!latent) return;
    for (const [text] of latent.given) for (const w of words(text)) add(w, id, 1);
    for (const [word, , weight] of latent.terms) for (const w of words(word)) add(w, id, weight);
    for (const [, , ids, fired] of latent.contexts) {
      // A word may be of several tokens: it weighs as the strongest of them.
      const at = new Map(fired), shares = [];
      let text = "";
      ids.forEach((piece, i) => {
        text += data.pieces[piece];
        const share = (at.get(i) || 0) / latent.quantiles[12];
        while (shares.length < text.length) shares.push(share);
      });
      for (const match of text.toLowerCase().matchAll(WORD)) {
        const covered = shares.slice(match.index, match.index + match[0].length);
        add(match[0], id, 0.02 + Math.max(...covered, 0));
      }
    }
    for (const i of latent.raises) for (const w of words(data.pieces[i])) if (w.length > 2) add(w, id, 0.3);
  });
  return lookup;
}

function showSearch(text) {
  const total = new Map(), asked = words(text).slice(0, 50).map(stem);
  for (const word of asked) {
    const weights = built().get(word);
    if (!weights) continue;
    const rare = Math.log(data.latents.length / weights.size) + 0.1;
    for (const [id, weight] of weights) total.set(id, (total.get(id) || 0) + rare * Math.log1p(weight));
  }
  const best = [...total].sort((a, b) => b[1] - a[1]).slice(0, 40);
  main.replaceChildren(el("h2", null, best.length ? "Latents found" : "No latent has these words"));
  if (best.length) main.append(table(["latent", "score", "label", "strongest context"],
    best.map(([id, score]) => {
      const latent = data.latents[id];
      return [link(id), number(score, 2), label(latent), strip(latent.contexts[0], latent.quantiles[12])];
    })));
}

function route() {
  const [kind, ...rest] = decodeURIComponent(location.hash.slice(1)).split("/");
  const what = rest.join("/");
  if (kind === "latent" && /^\d+$/.test(what)) showLatent(Number(what));
  else if (kind === "search" && what) { query.value = what; showSearch(what); } else showTable();
  main.focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

document.getElementById("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = query.value.trim();
  location.hash = /^\d+$/.test(text) ? "latent/" + text : "search/" + encodeURIComponent(text);
});
window.addEventListener("hashchange", route);
route();
