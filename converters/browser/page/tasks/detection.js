// Detection: boxes around objects, each with a class and a confidence, as in `runtimes/tasks/detection.py`.

import { boxToPicture, toPicture } from "../decoders/boxes.js";
import { queries } from "../decoders/detr.js";
import { anchoredBoxes, detectionOutputRows, postProcessedSsd, selectedBoxes } from "../decoders/ssd.js";
import { yoloCells, yoloRows } from "../decoders/yolo.js";
import { counted, listOf, percent } from "./lists.js";

/** @typedef {import("../types.js").Box} Box */
/** @typedef {{ index: number, label: string | null, score: number, box: Box, points: [number, number][] }} Detection */

export const ID = "detection";
/** @type {Record<string, (decoder: import("../types.js").Decoder, outputs: import("../types.js").RealTensors) => import("../types.js").Candidate[]>} */
const LAYOUTS = {
  PostProcessedSsd: postProcessedSsd,
  SelectedBoxes: selectedBoxes,
  DetectionOutputRows: detectionOutputRows,
  AnchoredBoxes: anchoredBoxes,
  YoloRows: yoloRows,
  YoloCells: yoloCells,
  Queries: queries,
};

/**
 * Accept a model whose manifest names a decoder of boxes.
 * @param {import("../types.js").Manifest} manifest
 * @returns {import("../types.js").Task<Detection[]> | null}
 */
export function recognize(manifest) {
  const { decoder } = manifest.conversion.browser;
  if (decoder?.task !== ID || !(decoder.layout in LAYOUTS)) return null;
  return {
    decode(outputs, placement) {
      const found = LAYOUTS[decoder.layout](decoder, outputs).slice(0, decoder.limits.most);
      return found.map((one) => inPicture(named(one, decoder.labels), placement)).filter(isInside);
    },
    toJson: (found) =>
      found.map(({ label, index, score, box, points }) => ({ label, index, score, box, ...(points.length ? { points } : {}) })),
    summary: summaryOf,
    list: (found) => listOf(found.map((one) => ({ text: nameOf(one), number: percent(one.score), color: one.index }))),
    draw(found, pen) {
      const backwards = [...found].reverse(); // the most confident on top
      for (const { box, points, index } of backwards) {
        pen.box(box, index);
        pen.dots(points, index);
      }
      for (const one of found) pen.tag(one.box, `${nameOf(one)} ${percent(one.score)}`, one.index);
    },
  };
}

/**
 * @param {import("../types.js").Candidate} one
 * @param {string[] | null} labels
 * @returns {Detection}
 */
function named({ index, score, box, points }, labels) {
  return { index, label: labels?.[index] ?? null, score, box, points };
}

/**
 * @param {Detection} one
 * @param {import("../types.js").Placement} placement
 */
function inPicture(one, placement) {
  return { ...one, box: boxToPicture(one.box, placement), points: one.points.map((point) => toPicture(point, placement)) };
}

/** @param {{ box: Box }} one */
export function isInside({ box: [left, top, right, bottom] }) {
  return left < right && top < bottom;
}

/** @param {{ label: string | null, index: number }} one */
export function nameOf({ label, index }) {
  return label ?? `class ${index}`;
}

/** @param {{ label: string | null, index: number }[]} found */
export function summaryOf(found) {
  return found.length ? counted(found.map(nameOf)) : "nothing found";
}
