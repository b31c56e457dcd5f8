// Chooses where the model runs: every candidate has to pass the self-check before it is used.

import { asUserError, DeviceLostError, UserError } from "./errors.js";
import { readFile } from "./files.js";
import { SelfCheck } from "./selfcheck.js";
import { defaultThreads } from "./features.js";

const PASSES = 2; // some engines are right on their first inference only
const LONG_RUN = 100;

/** The candidates in order: WebGPU, then WebAssembly with threads, then with one. `wanted` may name device and threads. */
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
  constructor(manifest, engine, features, wanted) {
    this.manifest = manifest;
    this.engine = engine;
    this.features = features;
    this.wanted = wanted;
    this.waiting = candidates(features, wanted);
    this.notes = [];
    this.failure = null;
    this.session = null;
    this.inferences = 0;
    this.proofs = [];
  }

  static async open(manifest, features, wanted = {}, onProgress = () => {}) {
    const { engine } = manifest.conversion.browser;
    const model = new ProvenModel(manifest, await import(`./engines/${engine}.js`), features, wanted);
    model.checkBrowser();
    onProgress("loading the model");
    model.bytes = await readFile(manifest, manifest.model);
    model.selfCheck = await SelfCheck.read(manifest);
    await model.next(onProgress);
    return model;
  }

  /** Throws UserError if no build of the engine runs in this browser. */
  checkBrowser() {
    const { builds } = this.manifest.conversion.browser;
    if (this.engine.buildFor("cpu", 1, builds, this.features) && this.features.simd) return;
    const lacks = this.features.simd ? "relaxed SIMD" : "SIMD";
    const remedy = this.features.simd ? "convert with --compat, or use another browser" : "use a current browser on a current machine";
    const what = `This browser has no WebAssembly ${lacks}, which the engine needs.`;
    throw new UserError("engine", what, `To run the model, ${remedy}.`);
  }

  /** Open the next candidate that passes the self-check. Throws the last failure if none does. */
  async next(onProgress = () => {}) {
    while (this.waiting.length) {
      const candidate = this.waiting.shift();
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

  async tryCandidate(candidate, onProgress) {
    const { builds } = this.manifest.conversion.browser;
    const build = this.engine.buildFor(candidate.device, candidate.threads, builds, this.features);
    if (build === null) throw new UserError("engine", reasonFor(candidate, builds, this.features));
    onProgress(`opening on ${nameOf(candidate)}`);
    const began = performance.now();
    this.session = await this.engine.open(this.manifest, this.bytes, { ...candidate, build });
    this.loadMs = performance.now() - began;
    this.inferences = 0;
    this.proofs = [];
    for (let pass = 1; pass <= PASSES; pass++) {
      onProgress(`checking on ${nameOf(candidate)}, inference ${pass}`);
      await this.prove(pass);
    }
  }

  /** Run the self-check once. Throws UserError("proof") if the answers are not those of the source. */
  async prove(pass) {
    const given = await this.selfCheck.run(this);
    this.proofs.push(given);
    const verdict = this.selfCheck.judge(given);
    if (!verdict.passed) {
      const when = pass === 1 ? "" : ` from the ${pass === PASSES ? "second" : `${LONG_RUN}th`} inference on`;
      const what = `The answers on ${nameOf(this.session)} are not those of the source${when}: ${verdict.message}.`;
      throw new UserError("proof", what, "Do not use these answers. Try another browser, or make the artifact again.");
    }
    this.verdict = verdict;
  }

  /** Run until the 100th inference and prove once more; `pause` is awaited between inferences. */
  async proveLongRun(pause = async () => {}) {
    while (this.inferences < LONG_RUN - 1) {
      await this.run(this.selfCheck.feeds(this.inferences % this.selfCheck.count));
      await pause();
    }
    await this.prove(LONG_RUN);
  }

  /** Run one inference: the values of every output of the manifest, for one feed for every input. */
  async run(feeds) {
    this.inferences += 1;
    if (this.inferences > 1) return this.runOnce(feeds);
    const began = performance.now();
    const outputs = await this.runOnce(feeds);
    this.firstMs = performance.now() - began;
    return outputs;
  }

  async runOnce(feeds) {
    const { lost } = this.session;
    if (!lost) return this.session.run(feeds);
    const failed = lost.then(({ reason }) => {
      throw new DeviceLostError(reason);
    });
    return Promise.race([this.session.run(feeds), failed]);
  }

  /** Run `work`; if the WebGPU device is lost meanwhile, run it again on the next backend that passes the self-check. */
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
    const { session } = this;
    this.session = null;
    try {
      await session?.close();
    } catch {
      // A lost device cannot be closed.
    }
  }
}

/** A candidate or session as text: "WebGPU", "the CPU with 2 threads". */
export function nameOf({ device, threads }) {
  if (device === "webgpu") return "WebGPU";
  return threads > 1 ? `the CPU with ${threads} threads` : "the CPU with 1 thread";
}

function reasonFor(candidate, builds, features) {
  if (candidate.device === "webgpu") {
    return builds.includes("webgpu") ? "WebGPU needs a browser with WebAssembly JSPI." : "This folder holds no engine for WebGPU.";
  }
  if (!features.isolated) {
    return "Threads are off: the server does not send the headers for SharedArrayBuffer (COOP and COEP).";
  }
  return "This folder, or this browser, has no engine with threads.";
}
