// Chooses where the model runs: every candidate has to pass the self-check before it is used.

import { asUserError, DeviceLostError, UserError } from "./errors.js";
import { prefetch, readFile } from "./files.js";
import { fileOutputs, joined } from "./joins.js";
import { FILE as SELF_CHECK, SelfCheck } from "./selfcheck.js";
import { defaultThreads } from "./features.js";

/** @typedef {import("./types.js").Manifest} Manifest */
/** @typedef {import("./types.js").Tensor} Tensor */
/** @typedef {{ device?: string, threads?: number }} Wanted */
/** @typedef {{ device: string, threads: number }} Candidate */
/** @typedef {(text: string) => void} OnProgress */
/** @typedef {import("./types.js").Session} Session */
/** @typedef {typeof import("./engines/litert_js.js") | typeof import("./engines/ort_web.js")} Engine */

const PASSES = 2; // some engines are right on their first inference only
const LONG_RUN = 100;

/**
 * The candidates in order: WebGPU, then WebAssembly with threads, then with one. `wanted` may name device and threads.
 * @param {import("./features.js").Features} features
 * @param {Wanted} [wanted]
 * @returns {Candidate[]}
 */
export function candidates(features, wanted = {}) {
  const devices = wanted.device ? [wanted.device] : ["webgpu", "cpu"];
  const found = [];
  if (devices.includes("webgpu") && features.gpu && (wanted.device === "webgpu" || !features.gpu.isSoftware)) {
    found.push({ device: "webgpu", threads: 1 });
  }
  const threads = wanted.threads ?? defaultThreads(features.cores);
  if (threads > 1) found.push({ device: "cpu", threads });
  found.push({ device: "cpu", threads: 1 });
  return found;
}

/** The open model with its proof. `notes` say what was given up, `verdict` is that of the session in use. */
export class ProvenModel {
  /**
   * @param {Manifest} manifest
   * @param {Engine} engine
   * @param {import("./features.js").Features} features
   * @param {Wanted} wanted
   * @param {Uint8Array} bytes
   * @param {SelfCheck} selfCheck
   */
  constructor(manifest, engine, features, wanted, bytes, selfCheck) {
    this.manifest = manifest;
    this.engine = engine;
    this.features = features;
    this.wanted = wanted;
    this.bytes = bytes;
    this.selfCheck = selfCheck;
    this.waiting = candidates(features, wanted);
    /** @type {string[]} */
    this.notes = [];
    /** @type {UserError | null} */
    this.failure = null;
    /** @type {Session | null} */
    this.opened = null;
    /** @type {import("./selfcheck.js").Verdict} */
    this.verdict = { passed: false, metrics: {}, message: "nothing ran yet" };
    this.inferences = 0;
    this.loadMs = 0;
    this.firstMs = 0;
    /** @type {Float32Array[][][]} */
    this.proofs = [];
  }

  /**
   * Open a model on the first candidate that passes the self-check. Throws the last failure if none does.
   * @param {Manifest} manifest
   * @param {import("./features.js").Features} features
   * @param {Wanted} [wanted]
   * @param {OnProgress} [onProgress]
   */
  static async open(manifest, features, wanted = {}, onProgress = () => {}) {
    const { engine: id } = manifest.conversion.browser;
    /** @type {Engine} */
    const engine = await import(`./engines/${id}.js`);
    checkBrowser(manifest, engine, features);
    onProgress("loading the model");
    prefetch(manifest, [manifest.model, SELF_CHECK, ...firstFiles(manifest, engine, features, wanted)]);
    const bytes = await readFile(manifest, manifest.model);
    const model = new ProvenModel(manifest, engine, features, wanted, bytes, await SelfCheck.read(manifest));
    await model.next(onProgress);
    return model;
  }

  /** The session in use. */
  get session() {
    if (!this.opened) throw new UserError("engine", "The model is closed.", "Reload the page.");
    return this.opened;
  }

  /**
   * Open the next candidate that passes the self-check. Throws the last failure if none does.
   * @param {OnProgress} [onProgress]
   */
  async next(onProgress = () => {}) {
    for (let candidate = this.waiting.shift(); candidate; candidate = this.waiting.shift()) {
      try {
        await this.tryCandidate(candidate, onProgress);
        return;
      } catch (error) {
        await this.close();
        const failure = asUserError(error, `The engine failed on ${nameOf(candidate)}`);
        this.notes.push(failure.message);
        // A wrong answer says more than an engine that did not start.
        if (this.failure === null || failure.branch === "proof") this.failure = failure;
      }
    }
    throw this.failure;
  }

  /**
   * @param {Candidate} candidate
   * @param {OnProgress} onProgress
   */
  async tryCandidate(candidate, onProgress) {
    const { builds } = this.manifest.conversion.browser;
    const build = this.engine.buildFor(candidate.device, candidate.threads, builds, this.features);
    if (build === null) throw new UserError("engine", reasonFor(candidate, builds, this.features));
    onProgress(`opening on ${nameOf(candidate)}`);
    const began = performance.now();
    this.opened = await this.engine.open({ ...this.manifest, outputs: fileOutputs(this.manifest) }, this.bytes, { ...candidate, build });
    this.loadMs = performance.now() - began;
    this.inferences = 0;
    this.proofs = [];
    for (let pass = 1; pass <= PASSES; pass++) {
      onProgress(`checking on ${nameOf(candidate)}, inference ${pass}`);
      await this.prove(pass);
    }
  }

  /**
   * Run the self-check once, from a reset state if the model keeps one. Throws UserError("proof") if the answers are not those of the source.
   * @param {number} pass
   */
  async prove(pass) {
    const isStateful = this.manifest.selfcheck?.stateful;
    if (isStateful && this.inferences) await this.session.reset();
    const given = await this.selfCheck.run(this);
    if (isStateful) await this.session.reset();
    this.proofs.push(given);
    const verdict = this.selfCheck.judge(given);
    if (!verdict.passed) {
      const when = pass === 1 ? "" : ` from the ${pass === PASSES ? "second" : `${LONG_RUN}th`} inference on`;
      const what = `The answers on ${nameOf(this.session)} are not those of the source${when}: ${verdict.message}.`;
      throw new UserError("proof", what, "Do not use these answers. Try another browser, or make the artifact again.");
    }
    this.verdict = verdict;
  }

  /** Take a step towards the 100th inference, at which the model is proven once more. Returns whether that is done. */
  async stepLongRun() {
    const isLast = this.inferences >= LONG_RUN - 1;
    await (isLast ? this.prove(LONG_RUN) : this.run(this.selfCheck.feeds(this.inferences % this.selfCheck.count)));
    return isLast;
  }

  /** Run until the 100th inference, and prove the model once more. */
  async proveLongRun() {
    while (!(await this.stepLongRun()));
  }

  /**
   * Run one inference: the values of every output of the manifest, for one feed for every input.
   * @param {Tensor[]} feeds
   */
  async run(feeds) {
    this.inferences += 1;
    if (this.inferences > 1) return this.runOnce(feeds);
    const began = performance.now();
    const outputs = await this.runOnce(feeds);
    this.firstMs = performance.now() - began;
    return outputs;
  }

  /** @param {Tensor[]} feeds */
  async runOnce(feeds) {
    const { lost } = this.session;
    const running = this.session.run(feeds);
    if (!lost) return joined(this.manifest, await running);
    const failed = lost.then(({ reason }) => {
      throw new DeviceLostError(reason);
    });
    return joined(this.manifest, await Promise.race([running, failed]));
  }

  /**
   * Run `work`; if the WebGPU device is lost meanwhile, run it again on the next backend that passes the self-check.
   * @template T
   * @param {() => Promise<T>} work
   * @param {OnProgress} [onProgress]
   */
  async withFallback(work, onProgress = () => {}) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof DeviceLostError) || !this.waiting.length) throw error;
      this.notes.push(error.message);
      await this.close();
      await this.next(onProgress);
      return work();
    }
  }

  async close() {
    const { opened } = this;
    this.opened = null;
    try {
      await opened?.close();
    } catch {
      // A lost device cannot be closed.
    }
  }
}

/**
 * The engine's files that the first candidate will read.
 * @param {Manifest} manifest
 * @param {Engine} engine
 * @param {import("./features.js").Features} features
 * @param {Wanted} wanted
 */
function firstFiles(manifest, engine, features, wanted) {
  const { builds } = manifest.conversion.browser;
  const found = candidates(features, wanted).map(({ device, threads }) => engine.buildFor(device, threads, builds, features));
  const first = found.find((build) => build !== null);
  return first ? engine.filesOf(first) : [];
}

/**
 * Throws UserError if no build of the engine runs in this browser.
 * @param {Manifest} manifest
 * @param {Engine} engine
 * @param {import("./features.js").Features} features
 */
function checkBrowser(manifest, engine, features) {
  const { builds } = manifest.conversion.browser;
  if (engine.buildFor("cpu", 1, builds, features) && features.simd) return;
  const lacks = features.simd ? "relaxed SIMD" : "SIMD";
  const remedy = features.simd ? "convert with --compat, or use another browser" : "use a current browser on a current machine";
  const what = `This browser has no WebAssembly ${lacks}, which the engine needs.`;
  throw new UserError("engine", what, `To run the model, ${remedy}.`);
}

/**
 * A candidate or session as text: "WebGPU", "the CPU with 2 threads".
 * @param {{ device: string, threads: number }} candidate
 */
export function nameOf({ device, threads }) {
  if (device === "webgpu") return "WebGPU";
  return threads > 1 ? `the CPU with ${threads} threads` : "the CPU with 1 thread";
}

/**
 * @param {Candidate} candidate
 * @param {string[]} builds
 * @param {import("./features.js").Features} features
 */
function reasonFor(candidate, builds, features) {
  if (candidate.device === "webgpu") {
    return builds.includes("webgpu") ? "WebGPU needs a browser with WebAssembly JSPI." : "This folder holds no engine for WebGPU.";
  }
  if (!features.isolated) {
    return "Threads are off: the server does not send the headers for SharedArrayBuffer (COOP and COEP).";
  }
  return "This folder, or this browser, has no engine with threads.";
}
