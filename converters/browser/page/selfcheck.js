// The self-check: runs the stored inputs here, and compares the answers with the source's.

import { UserError } from "./errors.js";
import { readFile } from "./files.js";
import { comparable, compare, describe, meets, probe, worst } from "./metrics.js";
import { judgeLabels } from "./labels.js";
import { readNpz } from "./npz.js";
import { judgeRows, rowsAlong } from "./rows.js";
import { failedSlice } from "./slices.js";
import { dequantize, sampleOf, sizeOf } from "./tensors.js";

/** @typedef {import("./types.js").Manifest} Manifest */
/** @typedef {import("./types.js").Tensor} Tensor */
/** @typedef {{ passed: boolean, metrics: Record<string, number>, message: string }} Verdict */

/** The file's name. */
export const FILE = "selfcheck.npz";

/** The stored inputs and answers, in the manifest's order. */
export class SelfCheck {
  /**
   * @param {Manifest} manifest
   * @param {Tensor[]} inputs
   * @param {Tensor[]} outputs
   */
  constructor(manifest, inputs, outputs) {
    this.manifest = manifest;
    this.inputs = inputs;
    this.outputs = outputs;
    this.count = outputs[0].shape[0];
  }

  /**
   * Read it from beside the model.
   * @param {Manifest} manifest
   */
  static async read(manifest) {
    const arrays = await readNpz(await readFile(manifest, FILE));
    const part = (/** @type {string} */ kind, /** @type {import("./types.js").TensorSpec[]} */ specs) => {
      const found = [...arrays].filter(([name]) => name.startsWith(`${kind}:`));
      const named = new Map(found.map(([name, array]) => [name.slice(kind.length + 1), array]));
      return specs.map((spec, place) => named.get(spec.name) ?? found[place]?.[1]);
    };
    const inputs = part("input", manifest.inputs);
    const outputs = part("output", manifest.outputs);
    if (!manifest.selfcheck || [...inputs, ...outputs].some((array) => array === undefined)) {
      throw new UserError("input", "The self-check does not fit the model.", "Make the artifact again with edge convert.");
    }
    return new SelfCheck(manifest, inputs, outputs);
  }

  /**
   * The model's inputs of one sample.
   * @param {number} sample
   */
  feeds(sample) {
    return this.inputs.map((array) => sampleOf(array, sample));
  }

  /**
   * Run every sample once and return the answers: for each output one row of real numbers per sample.
   * @param {{ run: (feeds: Tensor[]) => Promise<import("./types.js").Values[]> }} session
   */
  async run(session) {
    /** @type {Float32Array[][]} */
    const given = this.manifest.outputs.map(() => []);
    for (let sample = 0; sample < this.count; sample++) {
      const outputs = await session.run(this.feeds(sample));
      outputs.forEach((data, place) => given[place].push(dequantize(data, this.manifest.outputs[place].quantization)));
    }
    return given;
  }

  /**
   * Compare the answers with the source's and return the verdict: {passed, metrics, message}.
   * @param {Float32Array[][]} given
   * @returns {Verdict}
   */
  judge(given) {
    const rule = /** @type {import("./types.js").SelfCheckRule} */ (this.manifest.selfcheck);
    const { metric, tolerance, outputs: looks = [] } = rule;
    /** @type {Record<string, number>} */
    let metrics = {};
    const matched = this.judgeRows(given);
    if (matched?.failure) return { passed: false, metrics, message: matched.failure };
    if (matched) metrics.rows_matched = matched.share;
    for (const [place, rows] of given.entries()) {
      if (looks[place]?.kind === "rows") continue;
      const expected = rows.map((_, sample) => Float32Array.from(sampleOf(this.outputs[place], sample).data, Number));
      const found = this.judgeOutput(place, looks[place], expected, rows);
      if (found.failure) return { passed: false, metrics: {}, message: found.failure };
      metrics = worst(metrics, found.metrics ?? {});
    }
    const shares = Object.entries({ labels_equal: "labels are equal", rows_matched: "rows match" }).filter(([name]) => name in metrics);
    if (!(metric in metrics) && shares.length) {
      const words = shares.map(([name, what]) => `${(100 * metrics[name]).toFixed(2)} % of the ${what}`);
      return { passed: true, metrics, message: words.join(", ") };
    }
    const passed = meets(metric, metrics[metric], tolerance);
    return { passed, metrics, message: describe(metric, metrics[metric], tolerance) };
  }

  /**
   * Match the outputs that are sets of rows; null if there are none.
   * @param {Float32Array[][]} given
   */
  judgeRows(given) {
    const looks = this.manifest.selfcheck?.outputs ?? [];
    const outputs = looks.flatMap((check, place) => {
      if (check.kind !== "rows") return [];
      const [{ axis }] = check.parts;
      const shape = this.outputs[place].shape.slice(1);
      const others = sizeOf(shape.map((size, at) => (at === axis ? 1 : size)));
      const expected = given[place].map((_, sample) => {
        const { data } = sampleOf(this.outputs[place], sample);
        return rowsAlong(Float32Array.from(data, Number), shape, axis);
      });
      const found = given[place].map((data) => {
        const values = data.map((value) => (Number.isNaN(value) ? Infinity : value)); // NaN means an absent row
        return rowsAlong(values, shape.map((size, at) => (at === axis ? data.length / others : size)), axis);
      });
      return [{ check, expected, given: found }];
    });
    return outputs.length ? judgeRows(this.manifest.precision, outputs) : null;
  }

  /**
   * Return {metrics} of one output, or {failure}. `look` has the manifest's settings for it.
   * @param {number} place
   * @param {import("./types.js").OutputCheck | undefined} look
   * @param {Float32Array[]} source
   * @param {Float32Array[]} answers
   * @returns {{ metrics?: Record<string, number>, failure?: string }}
   */
  judgeOutput(place, look, source, answers) {
    const { precision } = this.manifest;
    const { name } = this.manifest.outputs[place];
    const shape = this.outputs[place].shape.slice(1);
    if (answers.some((row) => row.length !== sizeOf(shape))) return { failure: `output '${name}' has another size than the source's` };
    if (look?.kind === "labels") {
      const { share, failure } = judgeLabels(precision, source, answers);
      return failure ? { failure: `output '${name}', ${failure}` } : { metrics: { labels_equal: share } };
    }
    const { expected, given } = comparable(source, answers);
    const broken = probe(expected, given);
    if (broken) return { failure: `output '${name}' ${broken}` };
    const slice = look ? failedSlice(look.parts, precision, shape, expected, given) : null;
    if (slice) return { failure: `output '${name}', index ${slice.index} of axis ${slice.axis}: ${slice.words}` };
    return { metrics: compare(expected, given) };
  }
}
