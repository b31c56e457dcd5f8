// The metrics of `runtimes/verification/metrics.py`, on rows: one Float32Array for each sample.

/** @typedef {Record<string, number>} Metrics */

const IDENTICAL_DB = 200;
const SUM_SLACK = 1e-3;
const SUM_LOST = 0.5;
const TOP_TIES = 0.25;
const TIED_APART = 0.1;
/** @type {Record<string, boolean>} */
const HIGHER_IS_BETTER = { max_abs: false, snr_db: true, cosine: true, top1_agreement: true, labels_equal: true, rows_matched: true };

/**
 * All metrics of the difference between two sets of rows.
 * @param {Float32Array[]} expected
 * @param {Float32Array[]} given
 * @returns {Metrics}
 */
export function compare(expected, given) {
  if (!expected[0].length) return { max_abs: 0, snr_db: IDENTICAL_DB, cosine: 1, top1_agreement: 1 };
  let largest = 0;
  let noise = 0;
  let same = 0;
  expected.forEach((row, sample) => {
    row.forEach((value, place) => {
      const difference = given[sample][place] - value;
      largest = Math.max(largest, Math.abs(difference));
      noise += difference * difference;
    });
    same += argmax(row) === argmax(given[sample]) ? 1 : 0;
  });
  const count = expected.length * expected[0].length;
  return {
    max_abs: largest,
    snr_db: decibels(signal(expected), noise / count),
    cosine: cosine(expected, given),
    top1_agreement: same / expected.length,
  };
}

/**
 * Whether a value is as good as the limit or better.
 * @param {string} metric
 * @param {number} value
 * @param {number} limit
 */
export function meets(metric, value, limit) {
  return HIGHER_IS_BETTER[metric] ? value >= limit : value <= limit;
}

/**
 * The worse of two sets of metrics.
 * @param {Metrics} first
 * @param {Metrics} second
 */
export function worst(first, second) {
  const merged = { ...second };
  for (const [name, value] of Object.entries(first)) {
    if (!(name in merged) || meets(name, merged[name], value)) merged[name] = value;
  }
  return merged;
}

/**
 * A metric and its limit as text.
 * @param {string} metric
 * @param {number} value
 * @param {number} limit
 */
export function describe(metric, value, limit) {
  const bound = HIGHER_IS_BETTER[metric] ? "at least" : "at most";
  return `${metric} ${Number(value.toPrecision(4))}, ${bound} ${Number(limit.toPrecision(4))}`;
}

/**
 * Both outputs with 0 where both hold NaN, or the same infinity; other values that are not finite stay.
 * @param {Float32Array[]} expected
 * @param {Float32Array[]} given
 */
export function comparable(expected, given) {
  if (expected.every((row) => row.every(Number.isFinite))) return { expected, given };
  const isSame = (/** @type {number} */ value, /** @type {number} */ other) => !Number.isFinite(value) && Object.is(value, other);
  const without = (/** @type {Float32Array[]} */ rows, /** @type {Float32Array[]} */ others) =>
    rows.map((row, sample) => row.map((value, place) => (isSame(value, others[sample][place]) ? 0 : value)));
  return { expected: without(expected, given), given: without(given, expected) };
}

/**
 * Describe an obvious defect, as text that follows "the output"; null if there is none.
 * @param {Float32Array[]} expected
 * @param {Float32Array[]} given
 */
export function probe(expected, given) {
  if (!given[0].length) return null;
  if (!given.every((row) => row.every(Number.isFinite))) return "holds values that are not finite (NaN or infinity)";
  if (!expected.every((row) => row.every(Number.isFinite))) return "is finite where the source's is not (NaN or infinity)";
  if (isConstant(given) && !isConstant(expected)) return "is the same for every input";
  const clipped = clippedShare(expected, given);
  if (clipped > TOP_TIES) {
    const share = `${Math.round(100 * clipped)}%`;
    return `is clipped: the top value is tied in ${share} of the samples, where the source's differ`;
  }
  if (sumsToOne(expected)) {
    const sum = given.reduce((total, row) => total + sumOf(row), 0) / given.length;
    if (Math.abs(sum - 1) > SUM_LOST) return `no longer sums to one as the source's does, but to ${sum.toPrecision(3)}`;
  }
  return null;
}

/** @param {Float32Array[]} rows */
function signal(rows) {
  let power = 0;
  for (let place = 0; place < rows[0].length; place++) {
    const mean = rows.length > 1 ? rows.reduce((sum, row) => sum + row[place], 0) / rows.length : 0;
    for (const row of rows) power += (row[place] - mean) ** 2;
  }
  return power / (rows.length * rows[0].length);
}

/**
 * @param {number} power
 * @param {number} noise
 */
function decibels(power, noise) {
  if (noise === 0) return IDENTICAL_DB;
  return power === 0 ? 0 : Math.min(IDENTICAL_DB, 10 * Math.log10(power / noise));
}

/**
 * @param {Float32Array[]} expected
 * @param {Float32Array[]} given
 */
function cosine(expected, given) {
  let weights = 0;
  let sum = 0;
  expected.forEach((row, sample) => {
    const other = given[sample];
    let product = 0;
    row.forEach((value, place) => (product += value * other[place]));
    const [first, second] = [norm(row), norm(other)];
    const weight = Math.max(first, second);
    weights += weight;
    sum += first * second > 0 ? (weight * product) / (first * second) : 0;
  });
  return weights ? sum / weights : 1;
}

/** @param {Float32Array} row */
function norm(row) {
  return Math.sqrt(row.reduce((sum, value) => sum + value * value, 0));
}

/** @param {Float32Array[]} rows */
function isConstant(rows) {
  if (rows.length < 2) return false;
  let apart = 0;
  let largest = 0;
  for (const row of rows) {
    row.forEach((value, place) => {
      apart = Math.max(apart, Math.abs(value - rows[0][place]));
      largest = Math.max(largest, Math.abs(value));
    });
  }
  return apart <= 1e-6 * largest;
}

/** @param {Float32Array[]} rows */
function sumsToOne(rows) {
  const isDistribution = (/** @type {Float32Array} */ row) => row.every((value) => value >= 0) && Math.abs(sumOf(row) - 1) <= SUM_SLACK;
  return rows[0].length > 1 && rows.every(isDistribution);
}

/**
 * The share of samples whose top value is tied at the global maximum although the source's top values differ.
 * @param {Float32Array[]} expected
 * @param {Float32Array[]} given
 */
function clippedShare(expected, given) {
  const top = Math.max(...given.map((row) => row[argmax(row)]));
  const isFlat = given.every((row) => row.every((value) => value === top));
  if (given[0].length < 2 || isFlat) return 0;
  const span = expected.reduce((most, row) => Math.max(most, row[argmax(row)]), -Infinity) - percentile10(expected);
  const isClipped = (/** @type {Float32Array} */ row, /** @type {number} */ sample) => {
    const tied = [...row.keys()].filter((place) => row[place] === top).map((place) => expected[sample][place]);
    if (tied.length < 2) return false;
    return tied.reduce((a, b) => Math.max(a, b)) - tied.reduce((a, b) => Math.min(a, b)) > TIED_APART * span;
  };
  return given.filter(isClipped).length / given.length;
}

/** @param {Float32Array[]} rows */
function percentile10(rows) {
  const values = new Float64Array(rows.length * rows[0].length);
  rows.forEach((row, sample) => values.set(row, sample * row.length));
  values.sort();
  const place = 0.1 * (values.length - 1);
  const low = Math.floor(place);
  return values[low] + (place - low) * ((values[low + 1] ?? values[low]) - values[low]);
}

/** @param {Float32Array} row */
function argmax(row) {
  let best = 0;
  for (let place = 1; place < row.length; place++) if (row[place] > row[best]) best = place;
  return best;
}

/** @param {Float32Array} row */
function sumOf(row) {
  return row.reduce((sum, value) => sum + value, 0);
}
