// The two protocols of `runtimes/measurement/protocols.py`, and their timed loop.

import { median, medianInterval } from "./statistics.js";

/** @typedef {() => Promise<unknown>} Call one inference */
/** @typedef {{ warmup_ms: number[], samples_ms: number[], total_s: number }} Timings */
/** @typedef {{ name: string, [key: string]: any }} Protocol as in `runtimes/measurement/protocols.py` */

const WINDOW_RUNS = 5;
const WINDOW_MS = 100;
const STABLE = 0.02;
const MIN_MS = 1000;
const YIELD_MS = 200; // the page stays usable: between two timed stretches, the browser draws

/**
 * Measure `call` by a protocol, {name: "steady" | "published", ...}: {warmup_ms, samples_ms, total_s}.
 * @param {Call} call
 * @param {Protocol} protocol
 * @param {(text: string) => void} [onProgress]
 */
export async function measure(call, protocol, onProgress = () => {}) {
  return protocol.name === "published" ? published(call, protocol, onProgress) : steady(call, protocol, onProgress);
}

/** The defaults of `edge bench`. */
export const STEADY = { name: "steady", max_s: 30, within: 0.01, min_runs: 130, max_runs: 100000 };

/**
 * @param {Call} call
 * @param {Protocol} protocol
 * @param {(text: string) => void} onProgress
 */
async function published(call, { runs, pause_s: pause }, onProgress) {
  const warmup = await timed(call, 1);
  await new Promise((resolve) => setTimeout(resolve, 1000 * pause));
  onProgress(`measuring, ${runs} runs`);
  return timings(warmup, await timed(call, runs));
}

/**
 * @param {Call} call
 * @param {Protocol} protocol
 * @param {(text: string) => void} onProgress
 */
async function steady(call, protocol, onProgress) {
  const { max_s: limit, within, min_runs: least, max_runs: most } = { ...STEADY, ...protocol };
  const start = performance.now();
  onProgress("warming up");
  const warmup = await warmUp(call, start + (1000 * limit) / 3);
  const samples = [];
  const batchFor = (/** @type {number} */ ms, /** @type {number[]} */ known) => Math.max(1, Math.min(most, Math.floor(ms / Math.max(median(known), 1e-6))));
  let batch = batchFor(MIN_MS / 2, warmup.slice(-WINDOW_RUNS));
  for (;;) {
    samples.push(...(await timed(call, batch)));
    onProgress(`measuring, ${samples.length} runs`);
    const left = start + 1000 * limit - performance.now();
    if (left <= 0 || samples.length >= most || isEnough(samples, least, within)) return timings(warmup, samples);
    batch = Math.min(batchFor(left, samples), Math.max(6, samples.length >> 1), most - samples.length);
  }
}

/**
 * @param {Call} call
 * @param {number} deadline
 */
async function warmUp(call, deadline) {
  const samples = await timed(call, 1);
  const medians = [];
  while (performance.now() < deadline && !isStable(medians)) {
    const window = [];
    const end = performance.now() + WINDOW_MS;
    while (window.length < WINDOW_RUNS || performance.now() < end) window.push(...(await timed(call, 1)));
    medians.push(median(window));
    samples.push(...window);
  }
  return samples;
}

/** @param {number[]} medians */
function isStable(medians) {
  const last = medians.slice(-3).sort((a, b) => a - b);
  return last.length === 3 && last[2] - last[1] <= STABLE * last[1] && last[1] - last[0] <= STABLE * last[1];
}

/**
 * @param {number[]} samples
 * @param {number} least
 * @param {number} within
 */
function isEnough(samples, least, within) {
  if (samples.length < least || sum(samples) < MIN_MS) return false;
  const interval = medianInterval(samples);
  const slack = interval ? within * interval.value : 0;
  return interval !== null && interval.low >= interval.value - slack && interval.high <= interval.value + slack;
}

/**
 * Time `count` calls. The clock is read once for each; every 200 ms the browser may draw, outside of the timed calls.
 * @param {Call} call
 * @param {number} count
 */
async function timed(call, count) {
  const samples = [];
  let last = performance.now();
  let pause = last + YIELD_MS;
  for (let run = 0; run < count; run++) {
    await call();
    const now = performance.now();
    samples.push(now - last);
    last = now;
    if (now > pause) {
      await new Promise((resolve) => setTimeout(resolve));
      last = performance.now();
      pause = last + YIELD_MS;
    }
  }
  return samples;
}

/**
 * @param {number[]} warmup
 * @param {number[]} samples
 */
function timings(warmup, samples) {
  return { warmup_ms: warmup, samples_ms: samples, total_s: sum(samples) / 1000 };
}

/** @param {number[]} values */
function sum(values) {
  return values.reduce((a, b) => a + b, 0);
}
