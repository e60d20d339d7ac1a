// Make elements: text goes in as text, never as markup.
const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

export function element(name, properties = {}, ...children) {
  const created = Object.assign(document.createElement(name), properties);
  created.append(...children);
  return created;
}

export function drawn(name, attributes = {}, ...children) {
  const created = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) created.setAttribute(key, value);
  created.append(...children);
  return created;
}

/** Place something by shares of its parent: {left: 0.5} is 50 %. */
export function placed(child, shares) {
  for (const [property, share] of Object.entries(shares)) child.style[property] = `${100 * share}%`;
  return child;
}

/** A score with three decimals, which are enough to tell two answers apart. */
export const score = (value) => value.toFixed(3);

/** Milliseconds with two digits that count. */
export const time = (value) => (value >= 10 ? value.toFixed(0) : value >= 0.095 ? value.toFixed(1) : value.toFixed(2));
