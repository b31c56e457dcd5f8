// Instance segmentation: boxes around objects, each with its outline, as in `runtimes/tasks/instances.py`.

import {
  areShares,
  best,
  boxToPicture,
  confident,
  cornersOfCenter,
  inPixels,
  misfit,
  rowsOf,
  suppressed,
  tensorOf,
  toPicture,
  transposed,
} from "../decoders/boxes.js";
import { outline } from "../decoders/outline.js";
import { cellBoxes } from "../decoders/yolo.js";
import { isInside, nameOf, summaryOf } from "./detection.js";
import { listOf, percent } from "./lists.js";

/** @typedef {import("../types.js").Box} Box */
/** @typedef {import("../types.js").Decoder} Decoder */
/** @typedef {import("../types.js").RealTensors} RealTensors */
/** @typedef {[number, number]} Point */
/** @typedef {{ index: number, label: string | null, score: number, box: Box, polygon: Point[] }} Instance */

export const ID = "instances";
const BOX = 4;
const ROW = 6; // left, top, right, bottom, score, class
const WITH_OBJECTNESS = 3; // boxes per cell in v5, which has the confidence that there is any object before the scores
const FINER = 4; // the mask's grid is this much finer than the prototypes', so that outlines are not jagged

/**
 * Accept a model whose manifest names the decoder of YOLO-seg.
 * @param {import("../types.js").Manifest} manifest
 * @returns {import("../types.js").Task<Instance[]> | null}
 */
export function recognize(manifest) {
  const { decoder } = manifest.conversion.browser;
  if (decoder?.task !== ID || decoder.layout !== "YoloInstances") return null;
  return {
    decode: (outputs, placement) => yoloInstances(decoder, outputs).map((one) => inPicture(one, placement)).filter(isInside),
    toJson: (found) => found,
    summary: summaryOf,
    list: (found) => listOf(found.map((one) => ({ text: nameOf(one), number: percent(one.score), color: one.index }))),
    draw(found, pen) {
      const backwards = [...found].reverse(); // the most confident on top
      for (const { polygon, index } of backwards) pen.polygon(polygon, index);
      for (const { box, index } of backwards) pen.box(box, index);
      for (const one of found) pen.tag(one.box, `${nameOf(one)} ${percent(one.score)}`, one.index);
    },
  };
}

/**
 * YOLO-seg: for each cell a box, a score per class and weights of prototypes, whose sum is the mask. In v5, objectness
 * stands before the scores. With the suppression inside, rows are corners, score, class and weights.
 * @param {Decoder} decoder
 * @param {RealTensors} outputs
 * @returns {Instance[]}
 */
function yoloInstances(decoder, outputs) {
  const { rows: spec, weights: count, size, labels, limits } = decoder;
  const planes = planesOf(decoder, outputs);
  let rows = rowsOf(outputs, spec);
  const isSelected = rows[0]?.length === ROW + count && !cellBoxes(rows.length, size);
  if (!isSelected && rows.length <= (rows[0]?.length ?? 0)) rows = transposed(rows);
  if (rows.some((row) => row.length <= BOX + count)) throw misfit(spec, [rows.length, rows[0].length]);
  const shares = areShares(rows);
  const hasObjectness = !isSelected && cellBoxes(rows.length, size) === WITH_OBJECTNESS;
  const scoresOf = (/** @type {Float32Array} */ row) =>
    hasObjectness ? row.subarray(BOX + 1, -count).map((score) => score * row[BOX]) : row.subarray(BOX, -count);
  const found = rows.map((row) => {
    const box = inPixels(isSelected ? row : cornersOfCenter(row), shares ? size : [1, 1]);
    const chosen = isSelected ? { score: row[BOX], index: Math.round(row[BOX + 1]) } : best(scoresOf(row));
    return { box, ...chosen, points: [], weights: row.subarray(-count) };
  });
  const sure = confident(found, limits);
  const kept = /** @type {typeof found} */ (isSelected ? sure.slice(0, limits.most) : suppressed(sure, limits));
  return kept.map(({ box, score, index, weights }) => ({
    index,
    label: labels?.[index] ?? null,
    score,
    box,
    polygon: polygonOf(box, weights, planes, size),
  }));
}

/**
 * The prototypes: their sides, and the value of a plane at a pixel.
 * @param {Decoder} decoder
 * @param {RealTensors} outputs
 */
function planesOf({ prototypes, axis, weights }, outputs) {
  const { shape, data } = tensorOf(outputs, prototypes);
  if (shape.length !== 4 || shape[0] !== 1 || shape[axis] !== weights) throw misfit(prototypes, shape);
  const [height, width] = axis === 1 ? shape.slice(2) : shape.slice(1, 3);
  const [ofPlane, ofPixel] = axis === 1 ? [height * width, 1] : [1, weights];
  return { height, width, value: (/** @type {number} */ plane, /** @type {number} */ pixel) => data[plane * ofPlane + pixel * ofPixel] };
}

/**
 * The outline of a mask within its box, in pixels of the input.
 * @param {Box} box
 * @param {Float32Array} weights
 * @param {ReturnType<typeof planesOf>} planes
 * @param {[number, number]} size
 * @returns {Point[]}
 */
function polygonOf(box, weights, { height, width, value }, size) {
  const step = [size[1] / width, size[0] / height]; // input pixels per prototype pixel
  const sides = [width, height];
  const low = sides.map((_, axis) => Math.max(0, Math.floor((box[axis] / step[axis]) * FINER)));
  const high = sides.map((side, axis) => Math.min(side * FINER, Math.ceil((box[2 + axis] / step[axis]) * FINER)));
  if (high[0] <= low[0] || high[1] <= low[1]) return [];
  const [across, down] = [pairsOf(low[0], high[0], width), pairsOf(low[1], high[1], height)];
  const mask = new Float32Array(width * height); // filled where the box needs it
  for (let y = down[0][0]; y <= down[down.length - 1][1]; y++) {
    for (let x = across[0][0]; x <= across[across.length - 1][1]; x++) {
      const pixel = y * width + x;
      mask[pixel] = weights.reduce((sum, weight, plane) => sum + weight * value(plane, pixel), 0);
    }
  }
  const inside = down.map(([top, bottom, share]) => {
    const row = (/** @type {number} */ x) => mask[top * width + x] * (1 - share) + mask[bottom * width + x] * share;
    return across.map(([left, right, part]) => row(left) * (1 - part) + row(right) * part > 0);
  });
  const corners = outline({ width: across.length, height: down.length, has: (x, y) => inside[y][x] });
  const within = (/** @type {number} */ place, /** @type {number} */ axis) =>
    Math.min(box[2 + axis], Math.max(box[axis], ((place + low[axis]) / FINER) * step[axis]));
  return corners.map(([x, y]) => [within(x, 0), within(y, 1)]);
}

/**
 * For the centers of the finer grid's pixels: the two places of the grid to interpolate between, and the second's share.
 * @param {number} start
 * @param {number} stop
 * @param {number} side
 * @returns {[number, number, number][]}
 */
function pairsOf(start, stop, side) {
  return Array.from({ length: stop - start }, (_, place) => {
    const center = Math.min(side - 1, Math.max(0, (start + place + 0.5) / FINER - 0.5));
    const low = Math.floor(center);
    return [low, Math.min(low + 1, side - 1), center - low];
  });
}

/**
 * @param {Instance} one
 * @param {import("../types.js").Placement} placement
 * @returns {Instance}
 */
function inPicture(one, placement) {
  const [width, height] = placement.size;
  const polygon = one.polygon.map((point) => {
    const [x, y] = toPicture(point, placement);
    return /** @type {Point} */ ([Math.min(width, Math.max(0, x)), Math.min(height, Math.max(0, y))]);
  });
  return { ...one, box: boxToPicture(one.box, placement), polygon };
}
