// Compares outputs whose number of rows depends on the input, as sets of rows, as `runtimes/verification/rows.py` does.

/** @typedef {import("./types.js").OutputCheck} OutputCheck */
/** @typedef {number[]} Row */
/** @typedef {{ check: OutputCheck, expected: Row[][], given: Row[][] }} Rows the rows of each sample */

// Precision → the share of rows that must match, and of a column's range that a value may be off.
/** @type {Record<string, [number, number]>} */
const LIMITS = { fp32: [0.999, 1 / 2048], fp16: [0.98, 1 / 128] };
const QUANTIZED = /** @type {const} */ ([0.8, 1 / 16]);
const FEWEST_SAMPLES = 4;
const SYSTEMATIC = 0.02; // share of the rows that may be missing in all samples alike
const MAX_COMPARED = 600;

/**
 * The rows of one sample along `axis`, without those that only pad it.
 * @param {ArrayLike<number>} data
 * @param {number[]} shape
 * @param {number} axis
 * @returns {Row[]}
 */
export function rowsAlong(data, shape, axis) {
  const inner = shape.slice(axis + 1).reduce((a, b) => a * b, 1);
  const outer = shape.slice(0, axis).reduce((a, b) => a * b, 1);
  const count = shape[axis];
  const rows = Array.from({ length: count }, (_, row) => {
    /** @type {Row} */
    const values = [];
    for (let before = 0; before < outer; before++) {
      for (let after = 0; after < inner; after++) values.push(data[(before * count + row) * inner + after]);
    }
    return values;
  });
  return rows.filter((row) => !row.every(Number.isNaN));
}

/**
 * Match outputs; those with the same number of rows in every sample are matched together. Returns the worst share of
 * matching rows, and what fails, or null.
 * @param {string} precision
 * @param {Rows[]} outputs
 */
export function judgeRows(precision, outputs) {
  /** @type {Map<string, Rows[]>} */
  const groups = new Map();
  for (const one of outputs) {
    const key = one.expected.map((rows) => rows.length).join();
    groups.set(key, [...(groups.get(key) ?? []), one]);
  }
  let worst = 1;
  for (const group of groups.values()) {
    const { share, failure } = judgeGroup(precision, group);
    const names = group.map(({ check }) => `'${check.name}'`).join(", ");
    if (failure) return { share, failure: `output${group.length > 1 ? "s" : ""} ${names}: ${failure}` };
    worst = Math.min(worst, share);
  }
  return { share: worst, failure: null };
}

/**
 * @param {string} precision
 * @param {Rows[]} group
 * @returns {{ share: number, failure: string | null }}
 */
function judgeGroup(precision, group) {
  const [limit, off] = LIMITS[precision] ?? QUANTIZED;
  const isBroken = group.some(({ given }) => given.some((rows) => rows.some((row) => !row.every(Number.isFinite))));
  if (isBroken) return { share: 0, failure: "holds values that are not finite (NaN or infinity)" };
  const samples = group[0].expected.map((_, sample) => sample);
  if (samples.some((sample) => new Set(group.map(({ given }) => given[sample].length)).size > 1)) {
    return { share: 0, failure: "outputs of one row each differ in their number of rows" };
  }
  const width = (/** @type {Row[][]} */ found) => found.flat()[0]?.length ?? 0;
  const tolerance = group.flatMap(({ check, expected, given }) => toleranceOf(check, Math.max(width(expected), width(given)), off));
  const pairs = samples.map((sample) => ({ mine: beside(group, "expected", sample), other: beside(group, "given", sample) }));
  if (pairs.some(({ other }) => other.some((row) => row.length !== tolerance.length))) {
    return { share: 0, failure: "its rows have another size in the result" };
  }
  const matched = pairs.reduce((sum, { mine, other }) => sum + countMatching(mine, other, tolerance), 0);
  const total = pairs.reduce((sum, { mine, other }) => sum + Math.max(mine.length, other.length), 0);
  const share = total ? matched / total : 1;
  const percent = (/** @type {number} */ part) => `${Number((100 * part).toPrecision(4))} %`;
  if (share < limit) return { share, failure: `${percent(share)} of ${total} rows match, at least ${percent(limit)}` };
  return { share, failure: lostEverywhere(pairs) };
}

/**
 * The rows of one sample, those of all outputs side by side.
 * @param {Rows[]} group
 * @param {"expected" | "given"} kind
 * @param {number} sample
 */
function beside(group, kind, sample) {
  return group[0][kind][sample].map((_, row) => group.flatMap((one) => one[kind][sample][row]));
}

/**
 * Rows that are missing in every sample, or too many in every sample: ties would go either way.
 * @param {{ mine: Row[], other: Row[] }[]} pairs
 */
function lostEverywhere(pairs) {
  const filled = pairs.filter(({ mine }) => mine.length);
  if (filled.length < FEWEST_SAMPLES) return null;
  const apart = filled.reduce((sum, { mine, other }) => sum + mine.length - other.length, 0);
  const share = apart / filled.reduce((sum, { mine }) => sum + mine.length, 0);
  if (share > SYSTEMATIC && filled.every(({ mine, other }) => other.length < mine.length)) return "the result lacks rows for every input";
  if (-share > SYSTEMATIC && filled.every(({ mine, other }) => other.length > mine.length)) return "the result has too many rows for every input";
  return null;
}

/**
 * How many rows can be matched one to one within the tolerance of each column.
 * @param {Row[]} expected
 * @param {Row[]} given
 * @param {number[]} tolerance
 */
function countMatching(expected, given, tolerance) {
  const fits = (/** @type {Row} */ one, /** @type {Row} */ other) =>
    one.every((value, column) => Math.abs(value - other[column]) <= tolerance[column]);
  const few = Math.min(expected.length, given.length);
  let inOrder = Array.from({ length: few }, (_, row) => fits(expected[row], given[row]));
  if (!inOrder.every(Boolean) && Math.max(expected.length, given.length) <= MAX_COMPARED) inOrder = inOrder.map(() => false);
  const isLeft = (/** @type {Row} */ _, /** @type {number} */ row) => !inOrder[row];
  const [left, others] = [expected.filter(isLeft).slice(0, MAX_COMPARED), given.filter(isLeft).slice(0, MAX_COMPARED)];
  const choices = left.map((one) => [...others.keys()].filter((place) => fits(one, others[place])));
  return inOrder.filter(Boolean).length + matching(choices);
}

/**
 * The size of a maximum matching; `choices` are the columns that fit each row (Kuhn, by augmenting paths).
 * @param {number[][]} choices
 */
function matching(choices) {
  /** @type {Map<number, number>} */
  const rowOf = new Map();
  for (const start of choices.keys()) {
    /** @type {Map<number, number>} */
    const reachedFrom = new Map();
    /** @type {Map<number, number>} */
    const columnOf = new Map([...rowOf].map(([column, row]) => [row, column]));
    const waiting = [start];
    let end = -1;
    while (waiting.length && end < 0) {
      const row = /** @type {number} */ (waiting.pop());
      for (const column of choices[row]) {
        if (reachedFrom.has(column)) continue;
        reachedFrom.set(column, row);
        const taken = rowOf.get(column);
        if (taken === undefined) {
          end = column;
          break;
        }
        waiting.push(taken);
      }
    }
    while (end >= 0) {
      const row = /** @type {number} */ (reachedFrom.get(end));
      rowOf.set(end, row);
      end = columnOf.get(row) ?? -1;
    }
  }
  return rowOf.size;
}

/**
 * @param {OutputCheck} check
 * @param {number} width
 * @param {number} off
 */
function toleranceOf({ parts }, width, off) {
  const allowed = new Array(width).fill(0);
  for (const { start, stop, span } of parts.slice(1)) allowed.fill(span * off, start, stop);
  return allowed;
}
