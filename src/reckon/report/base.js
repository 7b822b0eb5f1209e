// What both scripts use. Text reaches the page through textContent only, so nothing in it can act as markup.
const byId = (id) => document.getElementById(id);
const read = (id) => JSON.parse(byId(id)?.textContent ?? "null");

/** A new element with attributes and children; a string child becomes text. */
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** A new SVG element. */
function shape(name, attributes = {}, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text) element.textContent = text;
  return element;
}

/** Text with control characters, bidi overrides and lone surrogates made visible. */
function visible(text) {
  return text
    .replace(/[\x00-\x08\x0b-\x1f\x7f]/g, (c) => (c === "\x7f" ? "\u2421" : String.fromCharCode(0x2400 + c.charCodeAt(0))))
    .replace(/[\x80-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff]/g,
      (c) => `\u27e8U+${c.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}\u27e9`)
    .toWellFormed();
}

const whole = (value) => Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, "\u202f");
const minus = (text) => text.replace("-", "\u2212");

/** Four significant digits, or as many as asked for; a dash for null. */
function numeral(value, digits = 4) {
  if (value == null) return "\u2013";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return minus(value.toExponential(digits - 1).replace(/\.?0+e/, "e").replace("e+", "e"));
  return minus(String(Number(value.toPrecision(digits))));
}

/** Radio buttons drawn as one bar; `choose` gets the value. Returns a function that sets the labels. */
function segments(holder, name, options, chosen, choose) {
  const labels = options.map(([value, label]) => {
    const text = make("span", {}, label);
    const input = make("input", { type: "radio", name, value, checked: value === chosen });
    input.addEventListener("change", () => choose(value));
    holder.append(make("label", {}, input, text));
    return text;
  });
  return (texts) => texts.forEach((text, i) => { labels[i].textContent = text; });
}
