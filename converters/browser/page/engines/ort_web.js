// ONNX Runtime Web: runs .onnx files, on WebAssembly or WebGPU.

import { DeviceLostError } from "../errors.js";
import { readFile } from "../files.js";
import { matchTensors } from "../matching.js";
import { concreteShape, newArray, sizeOf } from "../tensors.js";

/** @typedef {import("../types.js").Manifest} Manifest */

const FOLDER = "engine/ort_web";
// Build → the library, and its WebAssembly.
/** @type {Record<string, [string, string]>} */
const FILES = {
  wasm: ["ort.wasm.min.js", "ort-wasm-simd-threaded"],
  webgpu: ["ort.jspi.min.js", "ort-wasm-simd-threaded.jspi"],
};

/**
 * The build of this engine for a device; null if the folder or the browser has none.
 * @param {string} device
 * @param {number} threads
 * @param {string[]} builds
 * @param {import("../features.js").Features} features
 * @returns {string | null}
 */
export function buildFor(device, threads, builds, features) {
  if (device === "webgpu") return builds.includes("webgpu") && features.jspi ? "webgpu" : null;
  return threads > 1 && !features.isolated ? null : "wasm";
}

/**
 * The files of a build that `open` reads and checks, its scripts first.
 * @param {string} build
 */
export function filesOf(build) {
  const [script, wasm] = FILES[build];
  return [script, `${wasm}.js`, `${wasm}.wasm.bin`].map((name) => `${FOLDER}/${name}`);
}

/**
 * Open a model: {device, threads, lost, run(feeds), close()}.
 * @param {Manifest} manifest
 * @param {Uint8Array} model
 * @param {{ device: string, threads: number, build: string }} wanted
 * @returns {Promise<import("../types.js").Session>}
 */
export async function open(manifest, model, { device, threads, build }) {
  const paths = filesOf(build);
  const files = await Promise.all(paths.map((path) => readFile(manifest, path)));
  const [script, glue] = paths.map((path) => new URL(path, document.baseURI).href);
  const ort = await import(script);
  ort.env.wasm.wasmBinary = files[files.length - 1].buffer;
  ort.env.wasm.wasmPaths = { mjs: glue };
  ort.env.wasm.numThreads = threads;
  const session = await ort.InferenceSession.create(model, {
    executionProviders: [device === "webgpu" ? "webgpu" : "wasm"],
    // Weights in int8 are turned to float once, on opening, and not in every inference.
    extra: { session: { disable_quant_qdq: "1" } },
  });
  const lost = device === "webgpu" ? ((await ort.env.webgpu.device)?.lost ?? null) : null;
  return new OrtSession(ort, session, manifest, { device, threads, lost });
}

class OrtSession {
  /**
   * @param {any} ort
   * @param {any} session
   * @param {Manifest} manifest
   * @param {{ device: string, threads: number, lost: Promise<{ reason: string }> | null }} state
   */
  constructor(ort, session, manifest, { device, threads, lost }) {
    this.ort = ort;
    this.session = session;
    this.device = device;
    this.threads = threads;
    this.lost = lost;
    this.inputs = manifest.inputs;
    /** State → the output that is its next value. */
    this.states = manifest.states ?? {};
    /** @type {Record<string, unknown>} */
    this.held = this.initial();
    const named = (/** @type {string[]} */ names) => names.map((name) => ({ name }));
    const given = Object.values(this.states);
    this.taken = session.inputNames.filter((/** @type {string} */ name) => !(name in this.states));
    this.told = session.outputNames.filter((/** @type {string} */ name) => !given.includes(name));
    this.order = matchTensors(manifest.inputs, named(this.taken));
    this.answers = matchTensors(manifest.outputs, named(this.told));
  }

  /** The states that the first inference takes: zeros. */
  initial() {
    const specs = this.session.inputMetadata.filter((/** @type {{ name: string }} */ { name }) => name in this.states);
    return Object.fromEntries(
      specs.map((/** @type {{ name: string, type: string, shape: number[] }} */ { name, type, shape }) => {
        return [name, new this.ort.Tensor(type, newArray(type, sizeOf(shape)), shape)];
      }),
    );
  }

  /** @param {import("../types.js").Tensor[]} feeds */
  async run(feeds) {
    /** @type {Record<string, unknown>} */
    const tensors = { ...this.held };
    this.inputs.forEach((spec, place) => {
      const data = newArray(spec.dtype, feeds[place].data.length);
      data.set(/** @type {any} */ (feeds[place].data));
      const shape = feeds[place].shape ?? concreteShape(spec);
      tensors[this.taken[this.order[place]]] = new this.ort.Tensor(spec.dtype, data, shape);
    });
    try {
      const outputs = await this.session.run(tensors);
      for (const [name, output] of Object.entries(this.states)) this.held[name] = outputs[output];
      return this.answers.map((place) => outputs[this.told[place]].data);
    } catch (error) {
      throw this.device === "webgpu" && /lost|destroyed/i.test(String(error)) ? new DeviceLostError("") : error;
    }
  }

  async reset() {
    this.held = this.initial();
  }

  async close() {
    await this.session.release();
  }
}
