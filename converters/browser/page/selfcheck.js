// The self-check: runs the stored inputs here, and compares the answers with the source's.

import { UserError } from "./errors.js";
import { readFile } from "./files.js";
import { compare, describe, meets, probe, worst } from "./metrics.js";
import { judgeLabels } from "./labels.js";
import { readNpz } from "./npz.js";
import { failedSlice } from "./slices.js";
import { dequantize, sampleOf, sizeOf } from "./tensors.js";

/** The stored inputs and answers, in the manifest's order. */
export class SelfCheck {
  constructor(manifest, inputs, outputs) {
    this.manifest = manifest;
    this.inputs = inputs;
    this.outputs = outputs;
    this.count = inputs[0].shape[0];
  }

  static async read(manifest) {
    const arrays = await readNpz(await readFile(manifest, "selfcheck.npz"));
    const part = (kind, specs) => {
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

  /** The model's inputs of one sample. */
  feeds(sample) {
    return this.inputs.map((array) => sampleOf(array, sample));
  }

  /** Run every sample once and return the answers: for each output one row of real numbers per sample. */
  async run(session) {
    const given = this.manifest.outputs.map(() => []);
    for (let sample = 0; sample < this.count; sample++) {
      const outputs = await session.run(this.feeds(sample));
      outputs.forEach((data, place) => given[place].push(dequantize(data, this.manifest.outputs[place].quantization)));
    }
    return given;
  }

  /** Compare the answers with the source's and return the verdict: {passed, metrics, message}. */
  judge(given) {
    const { metric, tolerance, outputs: looks = [] } = this.manifest.selfcheck;
    let metrics = {};
    for (const [place, rows] of given.entries()) {
      const expected = rows.map((_, sample) => Float32Array.from(sampleOf(this.outputs[place], sample).data, Number));
      const found = this.judgeOutput(place, looks[place], expected, rows);
      if (found.failure) return { passed: false, metrics: {}, message: found.failure };
      metrics = worst(metrics, found.metrics);
    }
    if (!(metric in metrics) && "labels_equal" in metrics) {
      return { passed: true, metrics, message: `${(100 * metrics.labels_equal).toFixed(2)} % of the labels are equal` };
    }
    const passed = meets(metric, metrics[metric], tolerance);
    return { passed, metrics, message: describe(metric, metrics[metric], tolerance) };
  }

  /** Return {metrics} of one output, or {failure}. `look` has the manifest's settings for it. */
  judgeOutput(place, look, expected, rows) {
    const { precision } = this.manifest;
    const { name } = this.manifest.outputs[place];
    const shape = this.outputs[place].shape.slice(1);
    if (rows[0].length !== sizeOf(shape)) return { failure: `output '${name}' has another size than the source's` };
    if (look?.kind === "labels") {
      const { share, failure } = judgeLabels(precision, expected, rows);
      return failure ? { failure: `output '${name}', ${failure}` } : { metrics: { labels_equal: share } };
    }
    const broken = probe(expected, rows);
    if (broken) return { failure: `output '${name}' ${broken}` };
    const slice = look ? failedSlice(look.parts, precision, shape, expected, rows) : null;
    if (slice) return { failure: `output '${name}', index ${slice.index} of axis ${slice.axis}: ${slice.words}` };
    return { metrics: compare(expected, rows) };
  }
}
