// Semantic segmentation: a class for each pixel, as in `runtimes/tasks/segmentation.py`.

import { misfit, tensorOf } from "../decoders/boxes.js";
import { listOf } from "./lists.js";

/** @typedef {import("../types.js").Decoder} Decoder */
/** @typedef {{ classes: Uint16Array, width: number, height: number, labels: string[] | null }} ClassMap */

export const ID = "segmentation";
const SMALLEST_NAMED = 0.01; // share of the picture; smaller masks get no label
const BACKGROUND = "background";
/** @type {Record<string, (decoder: Decoder, outputs: import("../types.js").RealTensors) => ClassMap>} */
const LAYOUTS = { ClassMap: classMap, ClassScoreMap: classScoreMap };

/**
 * Accept a model whose manifest names a decoder of class maps.
 * @param {import("../types.js").Manifest} manifest
 * @returns {import("../types.js").Task<ClassMap> | null}
 */
export function recognize(manifest) {
  const { decoder } = manifest.conversion.browser;
  if (decoder?.task !== ID || !(decoder.layout in LAYOUTS)) return null;
  return {
    decode: (outputs, placement) => inPicture(checked(LAYOUTS[decoder.layout](decoder, outputs)), decoder.size, placement),
    toJson: (map) => ({
      classes: sharesOf(map).map(({ index, share }) => ({ index, label: map.labels?.[index] ?? null, share })),
      size: [map.height, map.width],
    }),
    summary: (map) => sharesOf(map).map(({ index, share }) => `${nameOf(map, index)} ${percentOf(share)}`).join(", "),
    list(map) {
      const skipped = backgroundOf(map);
      const colorOf = (/** @type {number} */ index) => (index === skipped ? null : index);
      return listOf(
        sharesOf(map).map(({ index, share }) => ({ text: nameOf(map, index), number: percentOf(share), color: colorOf(index) })),
      );
    },
    draw(map, pen) {
      const skipped = backgroundOf(map);
      pen.mask(map, skipped);
      for (const { index, share } of sharesOf(map)) {
        if (index === skipped || share < SMALLEST_NAMED) continue;
        const [x, y] = middleOf(map, index);
        pen.tag([x, y, x, y], `${nameOf(map, index)} ${percentOf(share)}`, index);
      }
    },
  };
}

/**
 * Class indices: two sides beside axes of 1.
 * @param {Decoder} decoder
 * @param {import("../types.js").RealTensors} outputs
 * @returns {ClassMap}
 */
function classMap({ output, labels }, outputs) {
  const { shape, data } = tensorOf(outputs, output);
  const sides = shape.filter((side) => side !== 1);
  if (sides.length !== 2 || data.some((value) => value < 0)) throw misfit(output, shape);
  return { classes: Uint16Array.from(data), height: sides[0], width: sides[1], labels };
}

/**
 * One score per class for each pixel; a single class is a foreground.
 * @param {Decoder} decoder
 * @param {import("../types.js").RealTensors} outputs
 * @returns {ClassMap}
 */
function classScoreMap({ output, axis, threshold, labels }, outputs) {
  const { shape, data } = tensorOf(outputs, output);
  if (shape.length !== 4 || shape[0] !== 1) throw misfit(output, shape);
  const count = shape[axis];
  const [height, width] = axis === 1 ? shape.slice(2) : shape.slice(1, 3);
  const [ofPixel, ofClass] = axis === 1 ? [1, height * width] : [count, 1];
  const classes = new Uint16Array(height * width);
  for (let pixel = 0; pixel < classes.length; pixel++) {
    const first = pixel * ofPixel;
    let found = 0;
    for (let index = 1; index < count; index++) {
      if (data[first + index * ofClass] > data[first + found * ofClass]) found = index;
    }
    classes[pixel] = count > 1 ? found : Number(data[first] > threshold);
  }
  return { classes, height, width, labels };
}

/**
 * Drop the names if the map holds classes beyond them.
 * @param {ClassMap} map
 */
function checked(map) {
  const { labels, classes } = map;
  return labels && classes.some((index) => index >= labels.length) ? { ...map, labels: null } : map;
}

/**
 * The map in the picture's size, each pixel with the class at its place; `size` is the input's height and width.
 * @param {ClassMap} map
 * @param {[number, number]} size
 * @param {import("../types.js").Placement} placement
 * @returns {ClassMap}
 */
function inPicture(map, size, { size: [width, height], scale, offset }) {
  const rows = placesOf(height, scale[1], offset[1], size[0], map.height);
  const columns = placesOf(width, scale[0], offset[0], size[1], map.width);
  const classes = new Uint16Array(width * height);
  rows.forEach((row, y) => columns.forEach((column, x) => (classes[y * width + x] = map.classes[row * map.width + column])));
  return { classes, width, height, labels: map.labels };
}

/**
 * The index in a map axis of `length`, which covers `size` input pixels, of each of `count` pixels.
 * @param {number} count
 * @param {number} scale
 * @param {number} offset
 * @param {number} size
 * @param {number} length
 */
function placesOf(count, scale, offset, size, length) {
  return Int32Array.from({ length: count }, (_, place) => {
    const center = (place + 0.5) * scale + offset;
    return Math.min(length - 1, Math.max(0, Math.floor((center * length) / size)));
  });
}

/**
 * The share of the pixels of each class that occurs, largest first; ties go to the lower index.
 * @param {ClassMap} map
 */
function sharesOf({ classes }) {
  /** @type {Map<number, number>} */
  const counts = new Map();
  for (const index of classes) counts.set(index, (counts.get(index) ?? 0) + 1);
  const found = [...counts].map(([index, count]) => ({ index, share: count / classes.length }));
  return found.sort((one, other) => other.share - one.share || one.index - other.index);
}

/**
 * The class that stays as it is, or null.
 * @param {ClassMap} map
 */
function backgroundOf({ labels }) {
  return (labels?.[0] ?? BACKGROUND).toLowerCase() === BACKGROUND ? 0 : null;
}

/**
 * The pixel of a class that is nearest to the middle of all of its pixels.
 * @param {ClassMap} map
 * @param {number} wanted
 * @returns {[number, number]}
 */
function middleOf({ classes, width }, wanted) {
  let [x, y, count] = [0, 0, 0];
  classes.forEach((index, place) => {
    if (index === wanted) [x, y, count] = [x + (place % width), y + Math.floor(place / width), count + 1];
  });
  [x, y] = [x / count, y / count];
  /** @type {[number, number]} */
  let found = [0, 0];
  let nearest = Infinity;
  classes.forEach((index, place) => {
    if (index !== wanted) return;
    const [across, down] = [place % width, Math.floor(place / width)];
    const distance = (across - x) ** 2 + (down - y) ** 2;
    if (distance < nearest) [nearest, found] = [distance, [across, down]];
  });
  return found;
}

/**
 * @param {ClassMap} map
 * @param {number} index
 */
function nameOf({ labels }, index) {
  return labels?.[index] ?? `class ${index}`;
}

/** @param {number} share */
function percentOf(share) {
  return share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`;
}
