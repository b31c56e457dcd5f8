// Classification: the most likely classes, as in `runtimes/tasks/classification.py`.

import { dequantize, softmax } from "../tensors.js";

export const ID = "classification";
const SHOWN = 5;

/** Accept a model whose manifest says what its first output is. */
export function recognize(manifest, labels) {
  if (!manifest.output) return null;
  const decode = (outputs) => classesOf(manifest, labels, outputs);
  return { decode, show: (outputs, element) => show(decode(outputs), element) };
}

/** The most likely classes: [{index, label, probability}]; ties go to the lower index. */
export function classesOf(manifest, labels, outputs, count = SHOWN) {
  const real = dequantize(outputs[0], manifest.outputs[0].quantization);
  const shares = manifest.output.kind === "logit" ? softmax(real) : real;
  const order = [...shares.keys()].sort((a, b) => shares[b] - shares[a] || a - b);
  return order.slice(0, count).map((place) => ({
    index: place - manifest.output.label_offset,
    label: labels?.[place] ?? null,
    probability: shares[place],
  }));
}

function show(classes, element) {
  const list = document.createElement("ol");
  list.className = "classes";
  for (const { index, label, probability } of classes) {
    const item = document.createElement("li");
    const name = document.createElement("span");
    name.textContent = label ?? `class ${index}`;
    const share = document.createElement("span");
    share.className = "number";
    share.textContent = `${(100 * probability).toFixed(1)} %`;
    const bar = document.createElement("meter");
    [bar.max, bar.value] = [1, probability];
    bar.setAttribute("aria-hidden", "true");
    item.append(name, share, bar);
    list.append(item);
  }
  element.replaceChildren(list);
}
