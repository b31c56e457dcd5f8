// Detected boxes, and the steps that all detectors share, as in `runtimes/decoders/boxes.py`. Numbers are rounded to
// float32 where the host's are, so that ties fall the same way.

import { UserError } from "../errors.js";
import { sizeOf } from "../tensors.js";

/** @typedef {import("../types.js").Box} Box */
/** @typedef {import("../types.js").Candidate} Candidate */
/** @typedef {import("../types.js").Limits} Limits */
/** @typedef {import("../types.js").Placement} Placement */
/** @typedef {import("../types.js").RealTensors} RealTensors */
/** @typedef {import("../types.js").TensorSpec} TensorSpec */
/** @typedef {[number, number]} Size */
/** @typedef {number[] | Float32Array} Numbers */

const MAX_CANDIDATES = 30000;
const MAX_SHARE = 2; // boxes whose sides are all at most this are shares of the input, not pixels
const { fround } = Math;

/**
 * The rows of an output for one input, as views: [rows, columns].
 * @param {RealTensors} outputs
 * @param {TensorSpec} spec
 * @param {number} [width] the columns; without it, they are the output's last axis
 * @returns {Float32Array[]}
 */
export function rowsOf(outputs, spec, width) {
  const { shape, data } = tensorOf(outputs, spec);
  const columns = width ?? shape[shape.length - 1] ?? 1;
  if (!(columns > 0) || data.length % columns || sizeOf(shape.slice(0, -2)) > 1) throw misfit(spec, shape);
  return Array.from({ length: data.length / columns }, (_, row) => data.subarray(row * columns, (row + 1) * columns));
}

/**
 * An output whose values are all finite.
 * @param {RealTensors} outputs
 * @param {TensorSpec} spec
 */
export function tensorOf(outputs, spec) {
  const found = outputs.get(spec.name);
  if (!found) throw new UserError("input", `The model has no output '${spec.name}'.`, "Make the artifact again with edge convert.");
  if (!found.data.every(Number.isFinite)) {
    throw new UserError("input", `The model computed NaN or infinity in '${spec.name}'.`, "Try another picture.");
  }
  return found;
}

/**
 * The error for an output of another layout than the manifest says.
 * @param {TensorSpec} spec
 * @param {readonly number[]} shape
 */
export function misfit(spec, shape) {
  const what = `'${spec.name}' is [${shape.join(", ")}], which is not what the manifest says.`;
  return new UserError("input", what, "Make the artifact again with edge convert.");
}

/**
 * The transposed rows.
 * @param {Float32Array[]} rows
 */
export function transposed(rows) {
  return Array.from(rows[0] ?? [], (_, column) => Float32Array.from(rows, (row) => row[column]));
}

/**
 * Center x, center y, width, height → left, top, right, bottom.
 * @param {Numbers} row
 * @returns {Box}
 */
export function cornersOfCenter([x, y, width, height]) {
  const [across, down] = [fround(width / 2), fround(height / 2)];
  return [fround(x - across), fround(y - down), fround(x + across), fround(y + down)];
}

/**
 * Whether boxes are shares of the input rather than pixels, judged by the largest of the first four numbers.
 * @param {Numbers[]} rows
 */
export function areShares(rows) {
  return rows.every((row) => [row[0], row[1], row[2], row[3]].every((value) => Math.abs(value) <= MAX_SHARE));
}

/**
 * Shares of an input of `size` (height, width) → pixels.
 * @param {Numbers} box
 * @param {Size} size
 * @returns {Box}
 */
export function inPixels([left, top, right, bottom], [height, width]) {
  return [fround(left * width), fround(top * height), fround(right * width), fround(bottom * height)];
}

/**
 * The intersection over union of two boxes.
 * @param {Box} one
 * @param {Box} other
 */
export function overlap(one, other) {
  const across = Math.max(0, Math.min(one[2], other[2]) - Math.max(one[0], other[0]));
  const down = Math.max(0, Math.min(one[3], other[3]) - Math.max(one[1], other[1]));
  const shared = across * down;
  return fround(shared / Math.max(areaOf(one) + areaOf(other) - shared, 1e-9));
}

/** @param {Box} box */
function areaOf([left, top, right, bottom]) {
  return (right - left) * (bottom - top);
}

/**
 * The boxes of at least the limit's confidence, most confident first; equal ones stay in order.
 * @param {Candidate[]} found
 * @param {Limits} limits
 */
export function confident(found, { confidence }) {
  const kept = found.filter(({ score }) => score >= fround(confidence));
  return kept.sort((one, other) => other.score - one.score).slice(0, MAX_CANDIDATES);
}

/**
 * Non-maximum suppression per class, of boxes with the most confident first.
 * @param {Candidate[]} found
 * @param {Limits} limits
 */
export function suppressed(found, { iou, most }) {
  /** @type {Candidate[]} */
  const kept = [];
  for (const one of found) {
    if (kept.length === most) break;
    if (!kept.some((better) => isSame(better, one, iou))) kept.push(one);
  }
  return kept;
}

/**
 * Overlapping boxes of a class become their mean, weighted by score, as in MediaPipe's detectors.
 * @param {Candidate[]} found the most confident first
 * @param {Limits} limits
 */
export function merged(found, { iou, most }) {
  /** @type {Candidate[]} */
  const kept = [];
  for (let waiting = found; waiting.length && kept.length < most; ) {
    const [best, ...rest] = waiting;
    kept.push(meanOf([best, ...rest.filter((one) => isSame(best, one, iou))]));
    waiting = rest.filter((one) => !isSame(best, one, iou));
  }
  return kept;
}

/**
 * @param {Candidate} one
 * @param {Candidate} other
 * @param {number} iou
 */
function isSame(one, other, iou) {
  return one.index === other.index && overlap(one.box, other.box) > fround(iou);
}

/**
 * @param {Candidate[]} group
 * @returns {Candidate}
 */
function meanOf(group) {
  const total = group.reduce((sum, { score }) => sum + score, 0);
  /** @param {(one: Candidate) => number} value */
  const mean = (value) => group.reduce((sum, one) => sum + (one.score / total) * value(one), 0);
  const [best] = group;
  return {
    ...best,
    box: [mean(({ box }) => box[0]), mean(({ box }) => box[1]), mean(({ box }) => box[2]), mean(({ box }) => box[3])],
    points: best.points.map((_, place) => [mean(({ points }) => points[place][0]), mean(({ points }) => points[place][1])]),
  };
}

/**
 * The most likely class of a row of scores, and its score; ties go to the lower index.
 * @param {Numbers} scores
 */
export function best(scores) {
  let index = 0;
  for (let place = 1; place < scores.length; place++) if (scores[place] > scores[index]) index = place;
  return { index, score: scores[index] };
}

/** @param {number} logit */
export function sigmoid(logit) {
  return fround(1 / (1 + Math.exp(-Math.min(80, Math.max(-80, logit)))));
}

/**
 * A point of the model's input → its place in the picture.
 * @param {Numbers} point
 * @param {Placement} placement
 * @returns {[number, number]}
 */
export function toPicture([x, y], { scale, offset }) {
  return [(x - offset[0]) / scale[0], (y - offset[1]) / scale[1]];
}

/**
 * A box of the model's input → that of the picture, clipped to it.
 * @param {Box} box
 * @param {Placement} placement
 * @returns {Box}
 */
export function boxToPicture([left, top, right, bottom], placement) {
  const [width, height] = placement.size;
  const [x0, y0] = toPicture([left, top], placement);
  const [x1, y1] = toPicture([right, bottom], placement);
  /** @type {(value: number, size: number) => number} */
  const clip = (value, size) => Math.min(size, Math.max(0, value));
  return [clip(x0, width), clip(y0, height), clip(x1, width), clip(y1, height)];
}
