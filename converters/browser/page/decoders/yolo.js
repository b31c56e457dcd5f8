// The output layouts of YOLO models, as in `runtimes/decoders/yolo.py`.

import { areShares, best, confident, cornersOfCenter, inPixels, misfit, rowsOf, sigmoid, suppressed, transposed } from "./boxes.js";

/** @typedef {import("../types.js").Decoder} Decoder */
/** @typedef {import("../types.js").RealTensors} RealTensors */

const STRIDES = [4, 8, 16, 32, 64];
const BOX = 4; // center x, center y, width, height
const ROW = 6; // left, top, right, bottom, score, class
const [LOWEST_PROBABILITY, HIGHEST_PROBABILITY] = [-1, 2]; // scores beyond these are logits

/**
 * One box and one score per class for each cell of the grids; either axis may come first.
 * @param {Decoder} decoder
 * @param {RealTensors} outputs
 */
export function yoloCells(decoder, outputs) {
  const { size, limits } = decoder;
  const { rows, hasObjectness } = cellsOf(decoder, outputs);
  const areLogits = rows.some((row) => row.subarray(BOX).some((value) => value < LOWEST_PROBABILITY || value > HIGHEST_PROBABILITY));
  const shares = areShares(rows);
  const found = rows.map((row) => {
    let scores = areLogits ? row.subarray(BOX).map(sigmoid) : row.subarray(BOX);
    if (hasObjectness) scores = scores.subarray(1).map((score) => scores[0] * score);
    return { box: cornersOfCenter(shares ? inPixels(row, size) : row), ...best(scores), points: [] };
  });
  return suppressed(confident(found, limits), limits);
}

/**
 * @param {Decoder} decoder
 * @param {RealTensors} outputs
 */
function cellsOf({ output, size, classes, has_objectness: stated }, outputs) {
  const rows = rowsOf(outputs, output);
  const [first, second] = [rows.length, rows[0]?.length ?? 0];
  const has = (/** @type {number} */ numbers) => first === numbers || second === numbers;
  const hasObjectness = stated ?? (classes !== null && !has(BOX + classes) && has(BOX + 1 + classes));
  const numbers = classes === null ? Math.min(first, second) : BOX + (hasObjectness ? 1 : 0) + classes;
  if ((numbers !== first && numbers !== second) || numbers <= BOX) throw misfit(output, [first, second]);
  const isSecond = second === numbers && (first !== numbers || !cellBoxes(second, size));
  return { rows: isSecond ? rows : transposed(rows), hasObjectness };
}

/**
 * Boxes that the model has selected itself: corners, score and class. RT-DETR's rows hold center and size.
 * @param {Decoder} decoder
 * @param {RealTensors} outputs
 */
export function yoloRows({ output, size, has_centers: stated, limits }, outputs) {
  const rows = rowsOf(outputs, output, ROW);
  const shares = areShares(rows);
  const hasCenters = stated ?? (shares && rows.some((row) => row[2] < row[0] || row[3] < row[1]));
  const found = rows.map((row) => {
    const corners = hasCenters ? cornersOfCenter(row) : row;
    const box = shares ? inPixels(corners, size) : inPixels(corners, [1, 1]);
    return { box, score: row[BOX], index: Math.round(row[BOX + 1]), points: [] };
  });
  return confident(found, limits);
}

/**
 * How many boxes each cell of the grids of an input has, 1 or 3, if all have `count`; else 0.
 * @param {number} count
 * @param {[number, number]} size
 */
export function cellBoxes(count, [height, width]) {
  const cells = STRIDES.map((stride) => Math.ceil(height / stride) * Math.ceil(width / stride));
  const sums = new Set();
  for (let low = 0; low < cells.length; low++) {
    for (let high = low + 2; high <= cells.length; high++) sums.add(cells.slice(low, high).reduce((a, b) => a + b));
  }
  return [1, 3].find((boxes) => count % boxes === 0 && sums.has(count / boxes)) ?? 0;
}
