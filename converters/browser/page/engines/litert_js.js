// LiteRT.js: runs .tflite files, on WebAssembly or WebGPU.

import { DeviceLostError } from "../errors.js";
import { readFile } from "../files.js";
import { matchTensors } from "../matching.js";
import { newArray } from "../tensors.js";

/** @typedef {import("../types.js").Manifest} Manifest */

const FOLDER = "engine/litert_js";
// Build → its script; one instance of the library serves one build.
/** @type {Record<string, string>} */
const SCRIPTS = {
  single: "litert_wasm_internal",
  threads: "litert_wasm_threaded_internal",
  webgpu: "litert_wasm_jspi_internal",
  compat: "litert_wasm_compat_internal",
};

/**
 * The builds of this engine for a device, in the order of preference; `features` are those of `features.js`.
 * @param {string} device
 * @param {number} threads
 * @param {string[]} builds
 * @param {import("../features.js").Features} features
 * @returns {string | null}
 */
export function buildFor(device, threads, builds, features) {
  if (device === "webgpu") return builds.includes("webgpu") && features.jspi ? "webgpu" : null;
  if (!features.relaxedSimd) return builds.includes("compat") && threads === 1 ? "compat" : null;
  if (threads > 1) return builds.includes("threads") && features.isolated ? "threads" : null;
  return "single";
}

/**
 * The files of a build that `open` reads and checks, its scripts first.
 * @param {string} build
 */
export function filesOf(build) {
  const names = ["core.js", "wasm-utils.js", `${SCRIPTS[build]}.js`, `${SCRIPTS[build]}.wasm.bin`];
  return names.map((name) => `${FOLDER}/${name}`);
}

/**
 * Open a model: {device, threads, lost, run(feeds), close()}.
 * @param {Manifest} manifest
 * @param {Uint8Array} model
 * @param {{ device: string, threads: number, build: string }} wanted
 * @returns {Promise<import("../types.js").Session>}
 */
export async function open(manifest, model, { device, threads, build }) {
  const files = await Promise.all(filesOf(build).map((path) => readFile(manifest, path)));
  // @ts-ignore: the page's import map names this module
  const library = await import("@litertjs/core");
  // The library's own loader reads this object; the WebAssembly file is packed, so it cannot fetch it itself.
  /** @type {any} */ (self).Module = { wasmBinary: files[files.length - 1].buffer };
  await library.loadLiteRt(new URL(`${FOLDER}/${SCRIPTS[build]}.js`, document.baseURI).href, {
    threads: build === "threads",
    jspi: build === "webgpu",
  });
  try {
    const options = device === "webgpu" ? { accelerator: "webgpu" } : { accelerator: "wasm", cpuOptions: { numThreads: threads } };
    const compile = () => library.loadAndCompile(model, options);
    return new LiteRtSession(library, await compile(), compile, manifest, device, threads);
  } catch (error) {
    library.unloadLiteRt();
    throw error;
  }
}

class LiteRtSession {
  /**
   * @param {any} library
   * @param {any} compiled
   * @param {() => Promise<any>} compile
   * @param {Manifest} manifest
   * @param {string} device
   * @param {number} threads
   */
  constructor(library, compiled, compile, manifest, device, threads) {
    this.library = library;
    this.compiled = compiled;
    this.compile = compile;
    this.device = device;
    this.threads = threads;
    this.inputs = compiled.getInputDetails();
    // Place of each input of the library among the manifest's, and of each output of the manifest among the library's.
    this.order = matchTensors(this.inputs, manifest.inputs);
    this.answers = matchTensors(manifest.outputs, compiled.getOutputDetails());
    this.lost = device === "webgpu" ? (library.getWebGpuDevice()?.lost ?? null) : null;
  }

  /** @param {import("../types.js").Tensor[]} feeds */
  async run(feeds) {
    const tensors = this.inputs.map((/** @type {{ dtype: string, shape: Iterable<number> }} */ spec, /** @type {number} */ place) => {
      const feed = feeds[this.order[place]];
      const data = newArray(spec.dtype, feed.data.length);
      data.set(/** @type {any} */ (feed.data));
      return new this.library.Tensor(data, [...spec.shape]);
    });
    /** @type {any[]} */
    let outputs = [];
    try {
      outputs = await this.compiled.run(tensors);
      /** @type {import("../types.js").Values[]} */
      const values = [];
      for (const place of this.answers) values.push((await outputs[place].data()).slice());
      return values;
    } catch (error) {
      throw this.device === "webgpu" && /lost|destroyed/i.test(String(error)) ? new DeviceLostError("") : error;
    } finally {
      for (const tensor of [...tensors, ...outputs]) if (!tensor.deleted) tensor.delete();
    }
  }

  async reset() {
    this.compiled.delete();
    this.compiled = await this.compile();
  }

  async close() {
    this.compiled.delete();
    this.library.unloadLiteRt();
  }
}
