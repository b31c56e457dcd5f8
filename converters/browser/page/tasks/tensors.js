// Any other model: its outputs by name, with their range.

import { element } from "../dom.js";

/** @typedef {{ name: string, shape: number[], min: number, max: number, mean: number }} Summary */

export const ID = "tensors";

/**
 * Accept every model.
 * @returns {import("../types.js").Task<Summary[]>}
 */
export function recognize() {
  return {
    decode: (outputs) => [...outputs].map(([name, { shape, data }]) => ({ name, shape, ...rangeOf(data) })),
    toJson: (found) => Object.fromEntries(found.map(({ name, ...facts }) => [name, { dtype: "float32", ...facts }])),
    summary: () => "its outputs are beside it",
    list,
  };
}

/** @param {Float32Array} data */
function rangeOf(data) {
  let [min, max, sum] = [Infinity, -Infinity, 0];
  for (const value of data) [min, max, sum] = [Math.min(min, value), Math.max(max, value), sum + value];
  return { min, max, mean: sum / data.length };
}

/** @param {Summary[]} found */
function list(found) {
  const shown = element("ul");
  for (const { name, shape, min, max, mean } of found) {
    const numbers = [min, max, mean].map((value) => Number(value.toPrecision(4)));
    shown.append(element("li", `${name} [${shape.join(", ")}]: ${numbers[0]} to ${numbers[1]}, mean ${numbers[2]}`));
  }
  return shown;
}
