// Classification: the most likely classes, as in `runtimes/tasks/classification.py`.

import { element } from "../dom.js";
import { softmax } from "../tensors.js";

/** @typedef {import("../types.js").Manifest} Manifest */
/** @typedef {{ index: number, label: string | null, probability: number }} ClassScore */

export const ID = "classification";
const SHOWN = 5;

/**
 * Accept a model whose manifest says what its first output is.
 * @param {Manifest} manifest
 * @param {string[] | null} labels
 * @returns {import("../types.js").Task<ClassScore[]> | null}
 */
export function recognize(manifest, labels) {
  const { output } = manifest;
  if (!output) return null;
  return {
    decode: (outputs) => classesOf(output, labels, [...outputs.values()][0].data),
    toJson: (classes) => classes,
    summary: ([first]) => nameOf(first),
    list,
  };
}

/**
 * The most likely classes; ties go to the lower index.
 * @param {NonNullable<Manifest["output"]>} output
 * @param {string[] | null} labels
 * @param {Float32Array} real
 * @returns {ClassScore[]}
 */
function classesOf({ kind, label_offset: offset }, labels, real) {
  const shares = kind === "logit" ? softmax(real) : real;
  const order = [...shares.keys()].sort((a, b) => shares[b] - shares[a] || a - b);
  return order.slice(0, SHOWN).map((place) => ({
    index: place - offset,
    label: labels?.[place] ?? (place < offset ? "background" : null),
    probability: shares[place],
  }));
}

/** @param {ClassScore[]} classes */
function list(classes) {
  const shown = element("ol");
  shown.className = "classes";
  for (const one of classes) {
    const item = element("li");
    const share = element("span", `${(100 * one.probability).toFixed(1)} %`);
    share.className = "number";
    const bar = element("meter");
    [bar.max, bar.value] = [1, one.probability];
    bar.setAttribute("aria-hidden", "true");
    item.append(element("span", nameOf(one)), share, bar);
    shown.append(item);
  }
  return shown;
}

/** @param {ClassScore} one */
function nameOf({ label, index }) {
  return label ?? `class ${index}`;
}
