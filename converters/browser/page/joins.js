// Outputs as the source has them: parts that the conversion split are joined, as in `runtimes/joined_session.py`.

import { concreteShape, dequantize, sizeOf } from "./tensors.js";

/** @typedef {import("./types.js").Manifest} Manifest */
/** @typedef {import("./types.js").Values} Values */

/**
 * The outputs of the model file, which are the manifest's but for those that are split.
 * @param {Manifest} manifest
 */
export function fileOutputs({ outputs, conversion }) {
  return conversion.browser.outputs ?? outputs;
}

/**
 * The values of the manifest's outputs, from those of the file's.
 * @param {Manifest} manifest
 * @param {Values[]} values
 * @returns {Values[]}
 */
export function joined(manifest, values) {
  const { outputs, join = [] } = manifest;
  if (!join.length) return values;
  const specs = fileOutputs(manifest);
  return outputs.map((spec) => {
    const found = join.find(({ output }) => output === spec.name);
    if (!found) return values[specs.findIndex(({ name }) => name === spec.name)];
    const places = found.parts.map((part) => specs.findIndex(({ name }) => name === part));
    const parts = places.map((place) => dequantize(values[place], specs[place].quantization));
    const shapes = places.map((place) => concreteShape(specs[place]));
    return concatenated(parts, shapes, found.axis);
  });
}

/**
 * @param {Float32Array[]} parts
 * @param {number[][]} shapes
 * @param {number} axis
 */
function concatenated(parts, shapes, axis) {
  const blocks = shapes.map((shape) => sizeOf(shape.slice(axis)));
  const whole = blocks.reduce((sum, size) => sum + size, 0);
  const result = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let start = 0;
  parts.forEach((part, place) => {
    const block = blocks[place];
    for (let from = 0, to = start; from < part.length; from += block, to += whole) {
      result.set(part.subarray(from, from + block), to);
    }
    start += block;
  });
  return result;
}
