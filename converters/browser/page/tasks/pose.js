// Pose: the key points of persons, as in `runtimes/tasks/pose.py`.

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
import { element } from "../dom.js";
import { listOf, percent } from "./lists.js";

/** @typedef {import("../types.js").Box} Box */
/** @typedef {import("../types.js").Decoder} Decoder */
/** @typedef {import("../types.js").Placement} Placement */
/** @typedef {import("../types.js").RealTensors} RealTensors */
/** @typedef {{ name: string, x: number, y: number, score: number }} KeyPoint */
/** @typedef {{ score: number, box: Box, keypoints: KeyPoint[], label?: string | null, index?: number }} Pose */

export const ID = "pose";
const VISIBLE = 0.2; // the score from which a key point counts, and is drawn
const BOX = 4;
// The key points of COCO, and the pairs that a line joins.
const COCO = [
  ...["nose", "left eye", "right eye", "left ear", "right ear", "left shoulder", "right shoulder", "left elbow", "right elbow"],
  ...["left wrist", "right wrist", "left hip", "right hip", "left knee", "right knee", "left ankle", "right ankle"],
];
const BONES = [
  ...["3 1", "1 0", "0 2", "2 4", "5 6", "5 7", "7 9", "6 8", "8 10"],
  ...["5 11", "6 12", "11 12", "11 13", "13 15", "12 14", "14 16"],
].map((pair) => pair.split(" ").map(Number));
const MULTI_POSE = COCO.length * 3 + BOX + 1;
/** @type {Record<string, (decoder: Decoder, outputs: RealTensors) => Pose[]>} */
const LAYOUTS = { MoveNet: moveNet, YoloPose: yoloPose };

/**
 * Accept a model whose manifest names a decoder of key points.
 * @param {import("../types.js").Manifest} manifest
 * @returns {import("../types.js").Task<Pose[]> | null}
 */
export function recognize(manifest) {
  const { decoder } = manifest.conversion.browser;
  if (decoder?.task !== ID || !(decoder.layout in LAYOUTS)) return null;
  return {
    decode: (outputs, placement) => LAYOUTS[decoder.layout](decoder, outputs).map((pose) => inPicture(pose, placement)),
    toJson: (poses) => poses,
    summary: (poses) => poses.map((pose) => `a ${kindOf(pose)}, ${percent(pose.score)}`).join("; ") || "nobody found",
    list: (poses) =>
      listOf(
        poses.map((pose, place) => ({
          text: kindOf(pose),
          number: percent(pose.score),
          color: place,
          more: detailsOf(pose.keypoints),
        })),
        "Nobody found.",
      ),
    draw(poses, pen) {
      poses.forEach((pose, place) => {
        const { keypoints, box, score } = pose;
        const isSeen = (/** @type {number} */ point) => keypoints[point].score >= VISIBLE;
        const at = (/** @type {number} */ point) => /** @type {[number, number]} */ ([keypoints[point].x, keypoints[point].y]);
        for (const [from, to] of keypoints.length === COCO.length ? BONES : []) {
          if (isSeen(from) && isSeen(to)) pen.line(at(from), at(to), place);
        }
        pen.dots([...keypoints.keys()].filter(isSeen).map(at), place);
        const [left, top, right, bottom] = box;
        const above = top - 0.08 * (bottom - top); // the box begins at the eyes
        pen.tag([left, Math.max(0, above), right, bottom], `${kindOf(pose)} ${percent(score)}`, place);
      });
    },
  };
}

/**
 * MoveNet: y, x and score of each key point as shares; rows of several persons end with top, left, bottom, right, score.
 * @param {Decoder} decoder
 * @param {RealTensors} outputs
 * @returns {Pose[]}
 */
function moveNet({ output, size, limits }, outputs) {
  const { shape, data } = tensorOf(outputs, output);
  const areSeveral = shape[shape.length - 1] === MULTI_POSE;
  if (!areSeveral && data.length < COCO.length * 3) throw misfit(output, shape);
  if (!areSeveral) return [poseOf(data, size)];
  const people = rowsOf(outputs, output, MULTI_POSE).sort((one, other) => other[MULTI_POSE - 1] - one[MULTI_POSE - 1]);
  return people
    .filter((row) => row[MULTI_POSE - 1] >= Math.fround(limits.confidence))
    .map((row) => {
      const [top, left, bottom, right, score] = row.subarray(COCO.length * 3);
      return { ...poseOf(row, size), score, box: inPixels([left, top, right, bottom], size) };
    });
}

/**
 * @param {Float32Array} row
 * @param {[number, number]} size
 * @returns {Pose}
 */
function poseOf(row, [height, width]) {
  const keypoints = COCO.map((name, place) => {
    const [y, x, score] = row.subarray(3 * place, 3 * place + 3);
    return { name, x: x * width, y: y * height, score };
  });
  const visible = keypoints.filter(({ score }) => score >= VISIBLE);
  const seen = visible.length ? visible : keypoints;
  const [across, down] = [seen.map(({ x }) => x), seen.map(({ y }) => y)];
  return {
    score: keypoints.reduce((sum, { score }) => sum + score, 0) / keypoints.length,
    box: [Math.min(...across), Math.min(...down), Math.max(...across), Math.max(...down)],
    keypoints,
  };
}

/**
 * YOLO-pose: for each cell a box, a score per class and key points (x, y, visibility).
 * @param {Decoder} decoder
 * @param {RealTensors} outputs
 * @returns {Pose[]}
 */
function yoloPose({ output, size, points: count, numbers, classes = 1, is_selected: stated, labels, limits }, outputs) {
  const rest = count * numbers;
  const [length, selectedLength] = [BOX + classes + rest, BOX + 2 + rest];
  let rows = rowsOf(outputs, output);
  const columns = rows[0]?.length ?? 0;
  const isCells = columns === length || rows.length === length;
  const isSelected = stated ?? (columns === selectedLength && !isCells); // corners, score, class, key points
  if (isSelected ? columns !== selectedLength : !isCells) throw misfit(output, [rows.length, columns]);
  if (!isSelected && columns !== length) rows = transposed(rows);
  const [height, width] = areShares(rows) ? size : [1, 1];
  const found = rows.map((row) => {
    const places = row.subarray(BOX + (isSelected ? 2 : classes));
    const { index, score } = isSelected ? { index: Math.round(row[BOX + 1]), score: row[BOX] } : best(row.subarray(BOX, BOX + classes));
    const visible = Array.from({ length: count }, (_, point) => (numbers === 3 ? places[3 * point + 2] : score));
    /** @type {[number, number][]} */
    const points = visible.map((_, point) => [places[numbers * point] * width, places[numbers * point + 1] * height]);
    const box = inPixels(isSelected ? row : cornersOfCenter(row), [height, width]);
    return { box, score, index, points, visible };
  });
  const kept = confident(found, limits);
  return /** @type {typeof found} */ (isSelected ? kept : suppressed(kept, limits)).map(({ box, score, index, points, visible }) => ({
    score,
    box,
    keypoints: points.map(([x, y], point) => ({ name: nameOf(point, count), x, y, score: visible[point] })),
    ...(classes > 1 ? { label: labels?.[index] ?? null, index } : {}),
  }));
}

/**
 * What to call an object: its class, or a person.
 * @param {Pose} pose
 */
function kindOf({ label, index }) {
  return index === undefined ? "person" : label ?? `class ${index}`;
}

/**
 * @param {number} point
 * @param {number} count
 */
function nameOf(point, count) {
  return count === COCO.length ? COCO[point] : `point ${point}`;
}

/**
 * Boxes are clipped to the picture, points are not: they may be outside.
 * @param {Pose} pose
 * @param {Placement} placement
 * @returns {Pose}
 */
function inPicture(pose, placement) {
  const moved = pose.keypoints.map((one) => {
    const [x, y] = toPicture([one.x, one.y], placement);
    return { ...one, x, y };
  });
  return { ...pose, box: boxToPicture(pose.box, placement), keypoints: moved };
}

/**
 * The key points by name, folded.
 * @param {KeyPoint[]} keypoints
 */
function detailsOf(keypoints) {
  const details = element("details");
  const list = element("ul");
  list.append(
    ...keypoints.map(({ name, x, y, score }) => element("li", `${name}: x ${x.toFixed(0)}, y ${y.toFixed(0)}, ${percent(score)}`)),
  );
  details.append(element("summary", `${keypoints.length} key points`), list);
  return details;
}
