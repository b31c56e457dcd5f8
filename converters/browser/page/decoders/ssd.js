// The output layouts of SSD detectors, as in `runtimes/decoders/ssd.py`.

import { areShares, confident, cornersOfCenter, inPixels, merged, misfit, rowsOf, sigmoid, tensorOf } from "./boxes.js";

/** @typedef {import("../types.js").Candidate} Candidate */
/** @typedef {import("../types.js").Decoder} Decoder */
/** @typedef {import("../types.js").RealTensors} RealTensors */

const ROW = 7; // picture, class, confidence, left, top, right, bottom
const { fround } = Math;

/**
 * The outputs of TFLite_Detection_PostProcess: boxes are top, left, bottom, right as shares; suppressed already.
 * @param {Decoder} decoder
 * @param {RealTensors} outputs
 */
export function postProcessedSsd({ boxes, classes, scores, size, first_class: first, limits }, outputs) {
  const rows = rowsOf(outputs, boxes, 4);
  const [indices, shares] = [tensorOf(outputs, classes), tensorOf(outputs, scores)];
  if (indices.data.length !== rows.length || shares.data.length !== rows.length) throw misfit(classes, indices.shape);
  const found = rows.map(([top, left, bottom, right], place) => ({
    box: inPixels([left, top, right, bottom], size),
    score: shares.data[place],
    index: Math.round(indices.data[place]) - first,
    points: [],
  }));
  return confident(found, limits);
}

/**
 * Boxes that the model has selected itself, with their classes and scores: corners in pixels of the input or shares.
 * @param {Decoder} decoder
 * @param {RealTensors} outputs
 */
export function selectedBoxes({ boxes, classes, scores, size, first_class: first, limits }, outputs) {
  const rows = rowsOf(outputs, boxes, 4);
  const [indices, shares] = [tensorOf(outputs, classes), tensorOf(outputs, scores)];
  if (indices.data.length !== rows.length || shares.data.length !== rows.length) throw misfit(classes, indices.shape);
  const unit = areShares(rows) ? size : [1, 1];
  const found = rows.map((row, place) => ({
    box: inPixels(row, unit),
    score: shares.data[place],
    index: indices.data[place] - first,
    points: [],
  }));
  return confident(found, limits);
}

/**
 * OpenVINO's DetectionOutput: class 0 is the background, and a negative picture ends the list.
 * @param {Decoder} decoder
 * @param {RealTensors} outputs
 */
export function detectionOutputRows({ output, size, limits }, outputs) {
  const rows = rowsOf(outputs, output, ROW);
  const end = rows.findIndex(([picture]) => picture < 0);
  const found = rows.slice(0, end < 0 ? rows.length : end).map((row) => ({
    box: inPixels(row.subarray(3), size),
    score: row[2],
    index: Math.round(row[1]) - 1,
    points: [],
  }));
  return confident(found, limits);
}

/**
 * MediaPipe's detectors: one raw box with key points for each anchor, in pixels relative to the anchor's center.
 * @param {Decoder} decoder
 * @param {RealTensors} outputs
 */
export function anchoredBoxes({ boxes, scores, size, grids, are_logits: areLogits, limits }, outputs) {
  const rows = rowsOf(outputs, boxes);
  const shares = tensorOf(outputs, scores);
  const centers = anchors(grids, size);
  if (rows.length !== centers.length || shares.data.length !== centers.length) throw misfit(boxes, [rows.length]);
  const found = rows.map((row, place) => {
    const [x, y] = centers[place];
    /** @type {[number, number][]} */
    const points = [];
    for (let at = 4; at + 1 < row.length; at += 2) points.push([fround(row[at] + x), fround(row[at + 1] + y)]);
    return {
      box: cornersOfCenter([fround(row[0] + x), fround(row[1] + y), row[2], row[3]]),
      score: areLogits ? sigmoid(shares.data[place]) : shares.data[place],
      index: 0,
      points,
    };
  });
  return merged(confident(found, limits), limits);
}

/**
 * The centers (x, y) of all anchors in pixels, row by row; `grids` are [stride, anchors per cell].
 * @param {[number, number][]} grids
 * @param {[number, number]} size
 */
function anchors(grids, [height, width]) {
  /** @type {[number, number][]} */
  const found = [];
  for (const [stride, count] of grids) {
    const [rows, columns] = [Math.ceil(height / stride), Math.ceil(width / stride)];
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const center = /** @type {[number, number]} */ ([((column + 0.5) * width) / columns, ((row + 0.5) * height) / rows]);
        for (let anchor = 0; anchor < count; anchor++) found.push(center);
      }
    }
  }
  return found;
}
