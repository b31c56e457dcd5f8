// One measurement, in the shape of a row of `edge bench --json`.

import { browserName } from "./features.js";
import { median, statisticsOf } from "./statistics.js";

/** @typedef {import("./backends.js").ProvenModel} ProvenModel */
/** @typedef {ReturnType<typeof rowOf>} Row */

/**
 * What describes the browser in a row. `fallbacks` are sentences about what was given up.
 * @param {ProvenModel} model
 */
export function browserOf(model) {
  const { features } = model;
  return {
    name: browserName(),
    user_agent: navigator.userAgent,
    isolated: features.isolated,
    relaxed_simd: features.relaxedSimd,
    gpu: features.gpu?.name ?? null,
    fallbacks: model.notes,
  };
}

/**
 * Return the row of `edge bench --json` for timings of `measure`.
 * @param {ProvenModel} model
 * @param {import("./measure.js").Timings} timings
 * @param {import("./measure.js").Protocol} protocol
 */
export function rowOf(model, timings, protocol) {
  const { manifest, session } = model;
  const { engine, version } = manifest.conversion.browser;
  const setup = `${manifest.name} in ${browserName()}, ${engine}`;
  const { samples_ms: samples, warmup_ms: warmup, total_s: total } = timings;
  const shared = { total_s: total, import_ms: null, load_ms: model.loadMs, first_ms: model.firstMs, peak_rss_bytes: null };
  return {
    setup,
    title: setup,
    host: null,
    status: "ok",
    runtime: engine,
    runtime_version: version,
    format: manifest.format,
    artifact: manifest.name,
    precision: manifest.precision,
    threads: session.threads,
    device: session.device,
    settings: {},
    protocol,
    machine: { cpu: null, logical_cores: model.features.cores, os: navigator.platform || null },
    input: { kind: "selfcheck", sha256: null },
    output: null,
    energy_source: null,
    energy_note: null,
    top: [],
    raw: null,
    samples_ms: samples,
    ...shared,
    energy_per_run_j: null,
    rounds: [{ round: 0, runs: samples.length, median_ms: median(samples), warmup_ms: warmup, ...shared }],
    ...statisticsOf(samples),
    browser: browserOf(model),
  };
}
