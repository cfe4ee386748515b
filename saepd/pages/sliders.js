// All text comes from data: it is only ever set as text, never as HTML.
const make = (tag, text, attributes = {}) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
};

// Milliseconds that a slider rests before its branches run.
const REST = 120;

function slider(name, attributes, value, moved) {
  const label = make("label"), shown = make("output", value.toFixed(2));
  const range = make("input", undefined, { type: "range", "aria-label": name, ...attributes });
  range.value = value;
  let waiting;
  range.addEventListener("input", () => {
    shown.textContent = Number(range.value).toFixed(2);
    clearTimeout(waiting);
    waiting = setTimeout(() => moved(Number(range.value)), REST);
  });
  label.append(make("span", name), range, shown);
  return { label, set: (to) => { range.value = to; shown.textContent = to.toFixed(2); } };
}

function row(name, shares, kind) {
  const line = make("tr");
  line.append(make("th", name, { scope: "row" }));
  for (const share of shares) {
    const cell = make("td"), bar = make("span", "", { class: "bar " + kind });
    bar.style.width = `${6 * share}em`;
    cell.append(bar, document.createTextNode(share.toFixed(2)));
    line.append(cell);
  }
  return line;
}

function render({ model, el }) {
  const fixed = model.get("fixed");
  const root = make("div", undefined, { class: "saepd-sliders" });
  const controls = make("div", undefined, { class: "controls" });
  const set = (name, value) => { model.set(name, value); model.save_changes(); };
  const strengths = Object.fromEntries(fixed.names.map((name) => {
    const control = slider(name, { min: -4, max: 8, step: 0.25 }, model.get("strengths")[name],
      (value) => set("strengths", { ...model.get("strengths"), [name]: value }));
    controls.append(control.label);
    return [name, control];
  }));
  const label = make("label"), operator = make("select", undefined, { "aria-label": "merge" });
  for (const name of fixed.operators) operator.append(make("option", name, { value: name }));
  operator.addEventListener("change", () => set("operator", operator.value));
  label.append(make("span", "merge"), operator);
  const alpha = slider("strength of the merge", { min: 0, max: 3, step: 0.05 },
    model.get("alpha"), (value) => set("alpha", value));
  controls.append(label, alpha.label);
  const bars = make("div", undefined, { class: "bars" });
  const said = make("p", "", { role: "alert" });
  root.append(make("p", fixed.prompt, { dir: "auto" }), controls, said, bars);

  const showControls = () => {
    for (const [name, control] of Object.entries(strengths)) {
      const value = model.get("strengths")[name];
      if (typeof value === "number") control.set(value);
    }
    operator.value = model.get("operator");
    alpha.set(model.get("alpha"));
  };
  const showBars = () => {
    const answer = model.get("bars"), table = make("table"), head = make("tr");
    head.append(make("th", ""), ...answer.options.map((o) => make("th", o, { scope: "col" })));
    table.append(head);
    for (const [name, shares] of Object.entries(answer.branches)) {
      table.append(row(name, shares, ""));
      const people = fixed.people[name];
      if (people && people.length === shares.length)
        table.append(row(name + ", people", people, "people"));
    }
    table.append(row("merged", answer.merged, ""));
    const sentence = `disagreement of the branches: ${answer.disagreement.toFixed(4)} nats`;
    bars.replaceChildren(table,
      make("p", answer.warning ? `${sentence}; ${answer.warning}` : sentence));
  };
  const showSaid = () => { said.textContent = model.get("said"); };
  const shown = { "change:strengths": showControls, "change:operator": showControls,
    "change:alpha": showControls, "change:bars": showBars, "change:said": showSaid };
  for (const [event, show] of Object.entries(shown)) model.on(event, show);
  showControls(); showBars(); showSaid();
  el.append(root);
  return () => { for (const [event, show] of Object.entries(shown)) model.off(event, show); };
}

export default { render };
