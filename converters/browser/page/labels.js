// Compares integer outputs as labels, as `runtimes/verification/labels.py` does.

const JUDGED_FROM = 100; // elements that a label, or the whole output, needs for its share to mean something
/** @type {Record<string, [number, number]>} */
const SHARES = { fp32: [0.9999, 0.999], fp16: [0.999, 0.99] };
const QUANTIZED = [0.97, 0.8];

/**
 * Return {share, failure}: how many labels are equal, and what fails, or null.
 * @param {string} precision
 * @param {Float32Array[]} expected
 * @param {Float32Array[]} given
 */
export function judgeLabels(precision, expected, given) {
  let [overall, each] = SHARES[precision] ?? QUANTIZED;
  const labels = new Map();
  let [equal, count] = [0, 0];
  expected.forEach((row, sample) =>
    row.forEach((label, place) => {
      const found = labels.get(label) ?? { label, kept: 0, count: 0 };
      const isEqual = given[sample][place] === label ? 1 : 0;
      found.count += 1;
      found.kept += isEqual;
      equal += isEqual;
      count += 1;
      labels.set(label, found);
    }),
  );
  if (count < JUDGED_FROM) overall = Math.min(overall, each);
  const judged = [...labels.values()].filter((one) => one.count >= JUDGED_FROM);
  judged.sort((one, other) => one.kept / one.count - other.kept / other.count || one.label - other.label);
  const [worst] = judged;
  const percent = (/** @type {number} */ share) => `${Number((100 * share).toPrecision(4))} %`;
  if (worst && worst.kept / worst.count < each) {
    const share = percent(worst.kept / worst.count);
    return { share: equal / count, failure: `label ${worst.label}: ${share} of ${worst.count} elements kept, at least ${percent(each)}` };
  }
  const isEnough = equal / count >= overall;
  return { share: equal / count, failure: isEnough ? null : `${percent(equal / count)} of ${count} labels are equal, at least ${percent(overall)}` };
}
