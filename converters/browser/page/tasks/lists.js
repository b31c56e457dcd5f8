// What was found, as text: lists that people read, and that screen readers do.

import { element } from "../dom.js";
import { colorOf } from "../pen.js";

/** @typedef {{ text: string, number: string, color: number | null, more?: Element }} Line */

/**
 * A list with a line for each thing found; `color` is the index of the color that it is drawn in, if any.
 * @param {Line[]} lines
 * @param {string} [nothing] what it says if there is none
 * @returns {Element}
 */
export function listOf(lines, nothing = "Nothing found.") {
  if (!lines.length) return element("p", nothing);
  const list = element("ul");
  list.className = "found";
  list.append(
    ...lines.map(({ text, number, color, more }) => {
      const item = element("li");
      const swatch = element("span");
      swatch.className = "swatch";
      if (color !== null) swatch.style.background = colorOf(color).css;
      const share = element("span", number);
      share.className = "number";
      item.append(swatch, element("span", text), share, ...(more ? [more] : []));
      return item;
    }),
  );
  return list;
}

/** @param {number} share */
export function percent(share) {
  return `${Math.round(100 * share)} %`;
}

/**
 * Names with their count: "2 × car, truck".
 * @param {string[]} names
 */
export function counted(names) {
  const counts = new Map();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts].map(([name, count]) => (count > 1 ? `${count} × ${name}` : name)).join(", ");
}
