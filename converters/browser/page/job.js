// A job of `edge verify --on browser` and `edge bench --on browser`: fetched from the server that opened this
// page, which also gets the answer. A static host has no jobs.

import { browserOf } from "./bench_row.js";
import { asUserError } from "./errors.js";
import { measure } from "./measure.js";
import { readNpz } from "./npz.js";
import { dequantize, sampleOf } from "./tensors.js";

/** @typedef {import("./backends.js").ProvenModel} ProvenModel */
/** @typedef {import("./backends.js").Wanted} Wanted */
/** @typedef {import("./backends.js").OnProgress} OnProgress */
/** @typedef {{ id: string, kind: "verify" | "measure", wanted: Wanted, protocol: import("./measure.js").Protocol, inputs: boolean, evaluate: boolean }} Job */

/**
 * The job that the page's address names: {kind, wanted, protocol, ...}, or null.
 * @returns {Promise<Job | null>}
 */
export async function readJob() {
  const id = new URLSearchParams(location.search).get("job");
  if (!id || !/^[\w-]+$/.test(id)) return null;
  const response = await fetch(`job/${id}`);
  return response.ok ? { id, ...(await response.json()) } : null;
}

/**
 * Do the job with `open(wanted, onProgress)`, which returns a ProvenModel, and post the answer or the error.
 * @param {Job} job
 * @param {(wanted: Wanted, onProgress: OnProgress) => Promise<ProvenModel>} open
 */
export async function runJob(job, open) {
  const post = (/** @type {string} */ part, /** @type {unknown} */ body) => fetch(`job/${job.id}/${part}`, { method: "POST", body: JSON.stringify(body) });
  const onProgress = (/** @type {string} */ phase) => void post("progress", { phase });
  let answer;
  try {
    const model = await open(job.wanted, onProgress);
    answer = await (job.kind === "measure" ? measured(job, model, onProgress) : verified(model, onProgress));
  } catch (error) {
    const { branch, message, hint } = asUserError(error, "The browser failed");
    answer = { error: branch, message, hint };
  }
  await post("answer", answer);
}

/**
 * @param {ProvenModel} model
 * @param {OnProgress} onProgress
 */
async function verified(model, onProgress) {
  onProgress("checking the 100th inference");
  await model.withFallback(() => model.proveLongRun(), onProgress);
  const { engine, version } = model.manifest.conversion.browser;
  return { runtime: engine, runtime_version: version, ...stateOf(model) };
}

/**
 * @param {Job} job
 * @param {ProvenModel} model
 * @param {OnProgress} onProgress
 */
async function measured(job, model, onProgress) {
  const feeds = job.inputs ? await feedsOf(job, "inputs").then(([first]) => first) : model.selfCheck.feeds(0);
  const timings = await model.withFallback(() => measure(() => model.run(feeds), job.protocol, onProgress), onProgress);
  onProgress("checking again");
  await model.withFallback(() => model.proveLongRun(), onProgress);
  const outputs = job.evaluate ? await evaluated(job, model, onProgress) : null;
  const { engine, version } = model.manifest.conversion.browser;
  return {
    ...timings,
    runtime: engine,
    runtime_version: version,
    load_ms: model.loadMs,
    first_ms: model.firstMs,
    last: (await model.run(feeds)).map((data, place) => packed(model, data, place)),
    outputs,
    ...stateOf(model),
  };
}

/**
 * What ran, and the answers to the self-check, which the host checks too.
 * @param {ProvenModel} model
 */
function stateOf(model) {
  const { threads, device } = model.session;
  const proofs = model.proofs.map((outputs) => outputs.map((rows) => rows.map(packedReal)));
  return { threads, device, browser: browserOf(model), proofs };
}

/**
 * @param {Job} job
 * @param {ProvenModel} model
 * @param {OnProgress} onProgress
 */
async function evaluated(job, model, onProgress) {
  const samples = await feedsOf(job, "evaluate");
  const rows = [];
  for (const [place, feeds] of samples.entries()) {
    if (place % 10 === 0) onProgress(`answering ${place} of ${samples.length} inputs`);
    rows.push((await model.run(feeds)).map((data, output) => packed(model, data, output)));
  }
  return rows;
}

/**
 * Feeds of every sample of an .npz that the server holds for the job.
 * @param {Job} job
 * @param {string} name
 */
async function feedsOf(job, name) {
  const response = await fetch(`job/${job.id}/${name}.npz`);
  const arrays = [...(await readNpz(new Uint8Array(await response.arrayBuffer()))).values()];
  return Array.from({ length: arrays[0].shape[0] }, (_, sample) => arrays.map((array) => sampleOf(array, sample)));
}

/**
 * Dequantized float32 values in base64.
 * @param {ProvenModel} model
 * @param {import("./types.js").Values} data
 * @param {number} place
 */
function packed(model, data, place) {
  return packedReal(dequantize(data, model.manifest.outputs[place].quantization));
}

/** @param {Float32Array} real */
function packedReal(real) {
  const bytes = new Uint8Array(real.buffer);
  let text = "";
  for (let start = 0; start < bytes.length; start += 8192) text += String.fromCharCode(...bytes.subarray(start, start + 8192));
  return btoa(text);
}
