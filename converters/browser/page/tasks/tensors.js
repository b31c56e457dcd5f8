// Any other model: its outputs by name, with their range.

import { dequantize } from "../tensors.js";

export const ID = "tensors";

/** Accept every model. */
export function recognize(manifest) {
  const decode = (outputs) =>
    manifest.outputs.map((spec, place) => {
      const real = dequantize(outputs[place], spec.quantization);
      const [low, high] = [real.reduce((a, b) => Math.min(a, b)), real.reduce((a, b) => Math.max(a, b))];
      return { name: spec.name, shape: spec.shape, low, high, mean: real.reduce((a, b) => a + b, 0) / real.length };
    });
  return { decode, show: (outputs, element) => show(decode(outputs), element) };
}

function show(tensors, element) {
  const list = document.createElement("ul");
  for (const { name, shape, low, high, mean } of tensors) {
    const item = document.createElement("li");
    const numbers = [low, high, mean].map((value) => Number(value.toPrecision(4)));
    item.textContent = `${name} [${shape.join(", ")}]: ${numbers[0]} to ${numbers[1]}, mean ${numbers[2]}`;
    list.append(item);
  }
  element.replaceChildren(list);
}
