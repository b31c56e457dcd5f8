// Pillow's resampling (src/libImaging/Resample.c): gives the pixels of the host. A browser's canvas filters differently.

/** @typedef {import("./types.js").Picture} Picture */
/** @typedef {{ support: number, weight: (x: number) => number }} Filter */

const PRECISION_BITS = 32 - 8 - 2;
/** @type {Record<"bilinear" | "bicubic", Filter>} */
const FILTERS = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { support: 2, weight: cubic },
};

/** @param {number} value */
function cubic(value) {
  const a = -0.5;
  const x = Math.abs(value);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

/**
 * Resize {width, height, data: RGB bytes} to width × height by "nearest", "bilinear" or "bicubic".
 * @param {Picture} picture
 * @param {number} width
 * @param {number} height
 * @param {"nearest" | "bilinear" | "bicubic"} method
 * @returns {Picture}
 */
export function resize(picture, width, height, method) {
  if (picture.width === width && picture.height === height) return picture;
  if (method === "nearest") return nearest(picture, width, height);
  const filter = FILTERS[method];
  const across = (/** @type {Picture} */ from) => (from.width === width ? from : alongRows(from, width, filter));
  const down = (/** @type {Picture} */ from) => (from.height === height ? from : alongColumns(from, height, filter));
  // Each pass rounds to bytes, so their order shows. Pillow 13 begins with the columns where that saves more.
  const isTall = height < picture.height && picture.height - height > 2 * (picture.width - width);
  return isTall ? across(down(picture)) : down(across(picture));
}

/**
 * The first source place and the fixed-point weights of every target place.
 * @param {number} inSize
 * @param {number} outSize
 * @param {Filter} filter
 */
function coefficients(inSize, outSize, filter) {
  const scale = inSize / outSize;
  const stretch = Math.max(scale, 1);
  const support = filter.support * stretch;
  return Array.from({ length: outSize }, (_, place) => {
    const center = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const last = Math.min(inSize, Math.trunc(center + support + 0.5));
    const weights = Array.from({ length: last - first }, (_, x) => filter.weight((x + first - center + 0.5) * (1 / stretch)));
    const sum = weights.reduce((a, b) => a + b, 0);
    const fixed = weights.map((weight) => {
      const scaled = (sum === 0 ? weight : weight / sum) * 2 ** PRECISION_BITS;
      return Math.trunc(scaled + (scaled < 0 ? -0.5 : 0.5));
    });
    return { first, weights: Int32Array.from(fixed) };
  });
}

/**
 * @param {Picture} picture
 * @param {number} target
 * @param {Filter} filter
 */
function alongRows({ width, height, data }, target, filter) {
  const result = new Uint8ClampedArray(target * height * 3);
  coefficients(width, target, filter).forEach(({ first, weights }, x) => {
    for (let y = 0; y < height; y++) mix(data, 3 * (y * width + first), 3, weights, result, 3 * (y * target + x));
  });
  return { width: target, height, data: result };
}

/**
 * @param {Picture} picture
 * @param {number} target
 * @param {Filter} filter
 */
function alongColumns({ width, data }, target, filter) {
  const result = new Uint8ClampedArray(width * target * 3);
  coefficients(data.length / (3 * width), target, filter).forEach(({ first, weights }, y) => {
    for (let x = 0; x < width; x++) {
      mix(data, 3 * (first * width + x), 3 * width, weights, result, 3 * (y * width + x));
    }
  });
  return { width, height: target, data: result };
}

/**
 * One target pixel: the weighted sum of source pixels that are `step` bytes apart, rounded.
 * @param {Uint8ClampedArray} data
 * @param {number} from
 * @param {number} step
 * @param {Int32Array} weights
 * @param {Uint8ClampedArray} result
 * @param {number} to
 */
function mix(data, from, step, weights, result, to) {
  for (let channel = 0; channel < 3; channel++) {
    let sum = 2 ** (PRECISION_BITS - 1);
    for (let k = 0; k < weights.length; k++) sum += data[from + k * step + channel] * weights[k];
    result[to + channel] = sum >> PRECISION_BITS;
  }
}

/**
 * @param {Picture} picture
 * @param {number} toWidth
 * @param {number} toHeight
 */
function nearest({ width, height, data }, toWidth, toHeight) {
  const places = (/** @type {number} */ size, /** @type {number} */ target) => {
    let at = (size / target) * 0.5;
    return Array.from({ length: target }, () => {
      const place = Math.trunc(at);
      at += size / target;
      return place;
    });
  };
  const [columns, rows] = [places(width, toWidth), places(height, toHeight)];
  const result = new Uint8ClampedArray(toWidth * toHeight * 3);
  rows.forEach((row, y) =>
    columns.forEach((column, x) => {
      for (let c = 0; c < 3; c++) result[3 * (y * toWidth + x) + c] = data[3 * (row * width + column) + c];
    }),
  );
  return { width: toWidth, height: toHeight, data: result };
}
