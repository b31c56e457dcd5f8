// The statistics of `runtimes/measurement/statistics.py`: order statistics, free of any distribution.

const PERCENTILE_CONFIDENCE = 0.99;

/**
 * The median; for an even number of samples, the mean of the two middle ones.
 * @param {ArrayLike<number>} samples
 */
export function median(samples) {
  const ordered = Float64Array.from(samples).sort();
  const middle = ordered.length >> 1;
  return ordered.length % 2 ? ordered[middle] : (ordered[middle - 1] + ordered[middle]) / 2;
}

/**
 * The median's 95 % interval, {low, value, high}; null for fewer than 6 samples.
 * @param {number[]} samples
 * @param {number} [confidence]
 */
export function medianInterval(samples, confidence = 0.95) {
  const rank = largestCount(samples.length, 0.5, (1 - confidence) / 2);
  if (rank === null) return null;
  const ordered = Float64Array.from(samples).sort();
  return { low: ordered[rank], value: median(ordered), high: ordered[ordered.length - 1 - rank] };
}

/**
 * The nearest-rank percentile; null if there are too few samples for it (p90 needs 64, p95 130).
 * @param {number[]} samples
 * @param {number} share
 */
export function percentile(samples, share) {
  const discards = largestCount(samples.length, 1 - share, 1 - PERCENTILE_CONFIDENCE);
  if (discards === null || discards < 1) return null;
  const rank = Math.ceil(Number((share * samples.length).toFixed(9)));
  return Float64Array.from(samples).sort()[rank - 1];
}

/**
 * The interquartile range divided by the median.
 * @param {number[]} samples
 */
export function spread(samples) {
  const ordered = Float64Array.from(samples).sort();
  const at = (/** @type {number} */ share) => {
    const place = share * (ordered.length - 1);
    const low = Math.floor(place);
    return ordered[low] + (place - low) * ((ordered[low + 1] ?? ordered[low]) - ordered[low]);
  };
  return at(0.5) ? (at(0.75) - at(0.25)) / at(0.5) : 0;
}

/**
 * All statistics of a row of `edge bench`.
 * @param {number[]} samples
 */
export function statisticsOf(samples) {
  const interval = medianInterval(samples);
  return {
    median_ms: median(samples),
    low_ms: interval?.low ?? null,
    high_ms: interval?.high ?? null,
    mean_ms: samples.reduce((a, b) => a + b, 0) / samples.length,
    p90_ms: percentile(samples, 0.9),
    p95_ms: percentile(samples, 0.95),
    spread: spread(samples),
  };
}

/**
 * The largest k with P(Binomial(trials, probability) <= k) <= limit; null if even k = 0 is too likely.
 * @param {number} trials
 * @param {number} probability
 * @param {number} limit
 */
export function largestCount(trials, probability, limit) {
  let logDensity = trials * Math.log1p(-probability);
  let likely = 0;
  for (let k = 0; k <= trials; k++) {
    likely += Math.exp(logDensity);
    if (likely > limit) return k > 0 ? k - 1 : null;
    logDensity += Math.log((trials - k) / (k + 1)) + Math.log(probability) - Math.log1p(-probability);
  }
  return trials;
}
