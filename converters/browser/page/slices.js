// Checks the parts of an output, as `runtimes/verification/slices.py` does: each channel, column or key point.

/** @typedef {import("./types.js").Part} Part */
/** @typedef {{ steps: number, snrDb: number }} Limits */
/** @typedef {{ words: string, axis: number, index: number, weight: number }} Defect */
/** @typedef {"low" | "high" | "lowest" | "highest" | "noise" | "second" | "fourth"} Moment */
/** @typedef {Record<Moment, Float32Array>} Moments */
/** @typedef {Moments & { count: number, placeOn: (axis: number, place: number) => number, inside: (place: number) => boolean, samples: number, rounding: number }} Elements */

/** @type {Moment[]} */
const MOMENTS = ["low", "high", "lowest", "highest", "noise", "second", "fourth"];
const SUMS = /** @type {const} */ (["noise", "second", "fourth"]);
const FEW = 16; // slices of an axis up to which each counts by its own range
const FEW_STEPS = 8;
const STILL = 0.02;
const DEAD_STEPS = 2;
const ROUNDING = 1e-6;
const EVIDENCE = 4;
// Precision → the quantization steps that a slice's range must hold, and the least ratio of movement to noise in dB.
/** @type {Record<string, [number, number]>} */
const LIMITS = { fp32: [2048, 30], fp16: [128, 10] };
const QUANTIZED = [32, 3];

/**
 * Describe the worst slice of an output that fails, or return null. `rows` are samples, `shape` that of one of them.
 * @param {Part[]} parts
 * @param {string} precision
 * @param {number[]} shape
 * @param {Float32Array[]} expected
 * @param {Float32Array[]} given
 */
export function failedSlice(parts, precision, shape, expected, given) {
  const [steps, snrDb] = LIMITS[precision] ?? QUANTIZED;
  const sizes = shape.length ? shape : [1];
  const found = parts.flatMap((part) => failuresOf(part, { steps, snrDb }, sizes, expected, given));
  return found.length ? found.reduce((worst, one) => (one.weight > worst.weight ? one : worst)) : null;
}

/**
 * @param {Part} part
 * @param {Limits} limits
 * @param {number[]} shape
 * @param {Float32Array[]} expected
 * @param {Float32Array[]} given
 * @returns {Defect[]}
 */
function failuresOf(part, limits, shape, expected, given) {
  if (part.span > 0 && part.step * limits.steps > part.span) {
    const words = `one step of the result is ${short(part.step)}, too coarse for their range of ${short(part.span)}`;
    return [{ words, axis: part.axis, index: part.start, weight: (1e3 * part.step) / part.span }];
  }
  const elements = elementsOf(part, shape, expected, given);
  /** @type {{ share: number, found: Defect[] }[]} */
  const candidates = [];
  shape.forEach((size, axis) => {
    const [start, stop] = axis === part.axis ? [part.start, Math.min(part.stop, size)] : [0, size];
    if (stop - start === 1 && axis !== part.axis) return;
    const found = defectsOf(slicesOf(elements, axis, start, stop), part, limits, axis);
    if (found.length) candidates.push({ share: found.length / (stop - start), found });
  });
  // The same defect shows on several axes: the fewest slices name it best.
  candidates.sort((one, other) => one.share - other.share);
  return candidates.length ? candidates[0].found : [];
}

/**
 * Statistics of each element over the samples, in one array for each; those outside of the part are left at 0.
 * @param {Part} part
 * @param {number[]} shape
 * @param {Float32Array[]} expected
 * @param {Float32Array[]} given
 * @returns {Elements}
 */
function elementsOf(part, shape, expected, given) {
  const count = shape.reduce((a, b) => a * b, 1);
  const placeOn = placesOf(shape);
  const inside = (/** @type {number} */ place) => placeOn(part.axis, place) >= part.start && placeOn(part.axis, place) < part.stop;
  const moments = /** @type {Moments} */ (Object.fromEntries(MOMENTS.map((name) => [name, new Float32Array(count)])));
  const elements = { ...moments, count, placeOn, inside, samples: expected.length, rounding: 0 };
  const middle = expected.length === 1 ? meanOf(expected[0], inside) : null; // then movement is that from place to place
  let largest = 0;
  for (let place = 0; place < count; place++) {
    if (!inside(place)) continue;
    addMoments(elements, place, expected, given, middle);
    largest = Math.max(largest, Math.abs(elements.low[place]), Math.abs(elements.high[place]));
  }
  elements.rounding = ROUNDING * largest;
  return elements;
}

/**
 * Return a function that gives the place of an element on an axis.
 * @param {number[]} shape
 * @returns {(axis: number, place: number) => number}
 */
function placesOf(shape) {
  const strides = shape.map((_, axis) => shape.slice(axis + 1).reduce((a, b) => a * b, 1));
  return (axis, place) => Math.floor(place / strides[axis]) % shape[axis];
}

/**
 * @param {Float32Array} row
 * @param {(place: number) => boolean} inside
 */
function meanOf(row, inside) {
  let [sum, count] = [0, 0];
  row.forEach((value, place) => {
    if (inside(place)) [sum, count] = [sum + value, count + 1];
  });
  return sum / count;
}

/**
 * @param {Elements} elements
 * @param {number} place
 * @param {Float32Array[]} expected
 * @param {Float32Array[]} given
 * @param {number | null} middle
 */
function addMoments(elements, place, expected, given, middle) {
  let [low, high, lowest, highest, noise, second, fourth] = [Infinity, -Infinity, Infinity, -Infinity, 0, 0, 0];
  const mean = middle ?? expected.reduce((sum, row) => sum + row[place], 0) / expected.length;
  for (let sample = 0; sample < expected.length; sample++) {
    const [value, other] = [expected[sample][place], given[sample][place]];
    [low, high] = [Math.min(low, value), Math.max(high, value)];
    [lowest, highest] = [Math.min(lowest, other), Math.max(highest, other)];
    noise += (other - value) ** 2 / expected.length;
    second += (value - mean) ** 2;
    fourth += (value - mean) ** 4;
  }
  const found = { low, high, lowest, highest, noise, second, fourth };
  for (const name of MOMENTS) elements[name][place] = found[name];
}

/**
 * Statistics of the slices of one axis.
 * @param {Elements} elements
 * @param {number} axis
 * @param {number} start
 * @param {number} stop
 */
function slicesOf(elements, axis, start, stop) {
  const slices = Array.from({ length: stop - start }, (_, index) => emptySlice(start + index));
  for (let place = 0; place < elements.count; place++) {
    if (!elements.inside(place)) continue;
    const slice = slices[elements.placeOn(axis, place) - start];
    const [low, high, lowest, highest] = MOMENTS.slice(0, 4).map((name) => elements[name][place]);
    slice.count += 1;
    [slice.low, slice.high] = [Math.min(slice.low, low), Math.max(slice.high, high)];
    [slice.lowest, slice.highest] = [Math.min(slice.lowest, lowest), Math.max(slice.highest, highest)];
    [slice.moved, slice.moves] = [Math.max(slice.moved, high - low), Math.max(slice.moves, highest - lowest)];
    for (const name of SUMS) slice[name] += elements[name][place];
  }
  for (const slice of slices) {
    slice.span = slice.high - slice.low;
    if (elements.samples === 1) [slice.moved, slice.moves] = [slice.span, slice.highest - slice.lowest];
    slice.signal = slice.second / (elements.samples * slice.count);
    slice.noise /= slice.count;
    slice.carriers = slice.fourth > 0 ? slice.second ** 2 / slice.fourth : 0;
  }
  return { slices, rounding: elements.rounding };
}

/** @param {number} index */
function emptySlice(index) {
  const ranges = { low: Infinity, high: -Infinity, lowest: Infinity, highest: -Infinity };
  const measured = { span: 0, signal: 0, carriers: 0 };
  return { index, count: 0, ...ranges, ...measured, moved: 0, moves: 0, noise: 0, second: 0, fourth: 0 };
}

/**
 * @param {ReturnType<typeof slicesOf>} of
 * @param {Part} part
 * @param {Limits} limits
 * @param {number} axis
 * @returns {Defect[]}
 */
function defectsOf({ slices, rounding }, part, limits, axis) {
  const isFew = slices.length <= FEW;
  return slices.flatMap((slice) => {
    const found = defectOf(slice, rounding, isFew, part, limits);
    return found ? [{ ...found, axis, index: slice.index }] : [];
  });
}

/**
 * The defect of one slice: {words, weight}; null if it is right.
 * @param {ReturnType<typeof emptySlice>} slice
 * @param {number} rounding
 * @param {boolean} isFew
 * @param {Part} part
 * @param {Limits} limits
 */
function defectOf(slice, rounding, isFew, part, limits) {
  if (slice.moved <= rounding) return null;
  const own = isFew && !part.natural ? slice.span : part.span;
  const isStill = slice.moves <= STILL * slice.moved;
  const isStrong = slice.carriers >= EVIDENCE || slice.moved > own / limits.steps;
  if (isStill && isStrong && slice.moved > (DEAD_STEPS * part.step || own / limits.steps)) {
    return { words: `constant in the result, while the source's moves by ${short(slice.moved)}`, weight: 1e3 };
  }
  if (isFew && !part.natural && part.step && slice.span < FEW_STEPS * part.step) {
    const words = `one step of the result is ${short(part.step)}, too coarse for their range of ${short(slice.span)}`;
    return { words, weight: (1e2 * part.step) / slice.span };
  }
  const ratio = 10 * Math.log10(Math.max(slice.signal, 1e-300) / Math.max(slice.noise, 1e-300));
  const allowed = Math.max(own / (2 * limits.steps), 10 * rounding);
  if (slice.carriers >= EVIDENCE && ratio < limits.snrDb && Math.sqrt(slice.noise) > allowed) {
    const words = `differs from the source's: ${ratio.toFixed(1)} dB, at least ${limits.snrDb} dB`;
    return { words, weight: limits.snrDb - ratio };
  }
  return null;
}

/** @param {number} value */
function short(value) {
  return String(Number(value.toPrecision(3)));
}
