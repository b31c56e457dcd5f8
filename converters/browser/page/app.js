// The page: opens the model, shows whether it is proven, runs it on pictures, and measures it.

import { element, find } from "./dom.js";
import { asUserError, UserError } from "./errors.js";
import { nameOf, ProvenModel } from "./backends.js";
import { browserName, detectFeatures } from "./features.js";
import { readFile } from "./files.js";
import { isolate } from "./isolation.js";
import { readJob, runJob } from "./job.js";
import { decodePicture, describeRule, fitPicture, pixelsOf, toInputs } from "./preprocess.js";
import { measure, STEADY } from "./measure.js";
import { rowOf } from "./bench_row.js";
import { AnswerView } from "./answer_view.js";
import { realTensors } from "./tensors.js";
import { taskOf } from "./tasks/index.js";

/** @typedef {import("./types.js").Manifest} Manifest */
/** @typedef {import("./types.js").Picture} Picture */
/** @typedef {import("./backends.js").Wanted} Wanted */
/** @typedef {import("./bench_row.js").Row} Row */
/** @typedef {(text: string) => void} OnProgress */

const MEASURE_S = 10;

async function main() {
  const job = await readJob();
  if (!job) await isolate();
  try {
    const [manifest, features] = await Promise.all([readManifest(), detectFeatures()]);
    document.title = `${manifest.name} – edge`;
    find("name").textContent = manifest.name;
    find("facts").textContent = factsOf(manifest);
    const open = (/** @type {Wanted} */ wanted, /** @type {OnProgress} */ onProgress) => openModel(manifest, features, wanted, onProgress);
    if (job) await runJob(job, open);
    else new Page(manifest, await open({}, showProgress), await readTask(manifest)).start();
  } catch (error) {
    showFailure(asUserError(error, "The page failed"));
  } finally {
    document.documentElement.dataset.state = find("verdict").dataset.state;
  }
}

/** @returns {Promise<Manifest>} */
async function readManifest() {
  const response = await fetch("manifest.json");
  if (!response.ok) throw new UserError("host", "manifest.json is missing from the server.", "Copy the whole folder to it.");
  return response.json();
}

/**
 * The model's task; a classifier's names are in a file.
 * @param {Manifest} manifest
 */
async function readTask(manifest) {
  const labels = manifest.output?.labels;
  const text = labels ? new TextDecoder().decode(await readFile(manifest, labels)) : null;
  return taskOf(manifest, text?.trimEnd().split("\n") ?? null);
}

/** @param {Manifest} manifest */
function factsOf(manifest) {
  const { engine, version } = manifest.conversion.browser;
  const name = { litert_js: "LiteRT.js", ort_web: "ONNX Runtime Web" }[engine];
  return `${manifest.format} ${manifest.precision}, ${name} ${version}, ${browserName()}`;
}

/**
 * @param {Manifest} manifest
 * @param {import("./features.js").Features} features
 * @param {Wanted} wanted
 * @param {OnProgress} onProgress
 */
async function openModel(manifest, features, wanted, onProgress) {
  const model = await ProvenModel.open(manifest, features, wanted, onProgress);
  showVerdict(model, `Proven on ${nameOf(model.session)}: first and second inference`);
  return model;
}

/** @param {string} text */
function showProgress(text) {
  setVerdict("working", `Checking: ${text} …`, "");
}

/**
 * @param {ProvenModel} model
 * @param {string} headline
 */
function showVerdict(model, headline) {
  setVerdict("passed", `${headline}.`, `The answers here are those of the source: ${model.verdict.message}.`);
  find("notes").replaceChildren(...model.notes.map((note) => element("li", note)));
}

/** @param {UserError} failure */
function showFailure({ branch, message, hint }) {
  const word = branch === "proof" ? "Proof failed. " : "This does not run here. ";
  setVerdict("failed", word + message, hint);
}

/**
 * @param {"working" | "passed" | "failed"} state
 * @param {string} headline
 * @param {string} detail
 */
function setVerdict(state, headline, detail) {
  find("verdict").dataset.state = state;
  find("headline").textContent = headline;
  find("detail").textContent = detail;
}

/** @typedef {{ input: string, task: string, result: unknown, latency_ms: number, runtime: string, runtime_version: string }} Answer */

/** The usable page of a proven model. One inference runs at a time. */
class Page {
  /**
   * @param {Manifest} manifest
   * @param {ProvenModel} model
   * @param {ReturnType<typeof taskOf>} task
   */
  constructor(manifest, model, task) {
    this.manifest = manifest;
    this.model = model;
    /** @type {Row | null} */
    this.row = null;
    /** @type {Answer | null} */
    this.answered = null;
    /** @type {MediaStream | null} */
    this.stream = null;
    this.isStopped = false; // after a failed proof
    /** @type {Promise<void>} */
    this.busy = Promise.resolve();
    this.task = task;
    this.view = new AnswerView(task);
  }

  start() {
    if (this.manifest.preprocess) this.takePictures(this.manifest.preprocess);
    else find("no-pictures").hidden = false;
    find("measure").hidden = false;
    find("run-measure").addEventListener("click", () => this.guarded(() => this.measure()));
    find("export").addEventListener("click", () => save([this.row], `${this.manifest.name}-browser.json`));
    this.proveWhenIdle();
  }

  /**
   * Run `work` after what is running now, and show the error that it throws.
   * @param {() => Promise<void>} work
   */
  guarded(work) {
    this.busy = this.busy.then(() => this.model.withFallback(work, showProgress)).catch((error) => {
      const failure = asUserError(error, "The model failed");
      if (failure.branch === "input") find("picture-note").textContent = `${failure.message} ${failure.hint}`;
      else this.stop(failure);
    });
    return this.busy;
  }

  /**
   * Disable the page after a failed proof.
   * @param {UserError} failure
   */
  stop(failure) {
    this.isStopped = true;
    this.closeCamera();
    showFailure(failure);
    for (const id of ["try", "measure"]) find(id).hidden = true;
  }

  /** Pictures need not wait for the 100th inference: between two steps, they come first. */
  async proveWhenIdle() {
    for (let isDone = false; !isDone && !this.isStopped; ) {
      await new Promise((resolve) => (self.requestIdleCallback ?? setTimeout)(() => resolve(undefined)));
      await this.guarded(async () => {
        isDone = await this.model.stepLongRun();
      });
    }
    if (this.isStopped) return;
    showVerdict(this.model, `Proven on ${nameOf(this.model.session)}: first, second and 100th inference`);
    find("verdict").dataset.inferences = "100";
  }

  /** @param {import("./types.js").Rule} rule */
  takePictures(rule) {
    find("try").hidden = false;
    find("rule").textContent = `Pictures are prepared here: ${describeRule(rule)}. They stay on this device.`;
    const [zone, file] = [find("try"), /** @type {HTMLInputElement} */ (find("file"))];
    const answerFirst = (/** @type {FileList | null | undefined} */ files) => files?.[0] && this.answerFile(files[0], rule);
    file.addEventListener("change", () => answerFirst(file.files));
    zone.addEventListener("dragover", (event) => event.preventDefault());
    zone.addEventListener("drop", (event) => {
      event.preventDefault();
      answerFirst(event.dataTransfer?.files);
    });
    find("camera").hidden = !navigator.mediaDevices?.getUserMedia;
    find("camera").addEventListener("click", () => this.toggleCamera(rule));
    find("save-answer").addEventListener("click", () => save([this.answered], `${this.answered?.input}.json`));
  }

  /**
   * @param {File} file
   * @param {import("./types.js").Rule} rule
   */
  answerFile(file, rule) {
    this.closeCamera();
    return this.guarded(async () => this.answer(await decodePicture(file), file.name, rule));
  }

  /**
   * @param {Picture} picture
   * @param {string} name that of its file
   * @param {import("./types.js").Rule} rule
   */
  async answer(picture, name, rule) {
    const { inputs, outputs: specs } = this.manifest;
    const fitted = fitPicture(picture, rule);
    const feeds = toInputs(fitted, inputs, rule);
    const began = performance.now();
    const outputs = await this.model.run(feeds);
    const took = performance.now() - began;
    const result = this.task.decode(realTensors(specs, outputs), fitted.placement);
    this.view.show(result, picture, fitted, Boolean(this.stream));
    find("picture-note").textContent = `${picture.width} × ${picture.height} pixels, answered in ${took.toFixed(1)} ms`;
    const { engine: runtime, version } = this.manifest.conversion.browser;
    const facts = { input: name, task: this.task.id, latency_ms: took, runtime, runtime_version: version };
    this.answered = { ...facts, result: this.task.toJson(result) };
  }

  /** @param {import("./types.js").Rule} rule */
  async toggleCamera(rule) {
    if (this.stream) return this.closeCamera();
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch {
      find("picture-note").textContent = "The camera could not be opened. Allow it for this page, or choose a picture.";
      return;
    }
    const video = document.createElement("video");
    [video.srcObject, video.muted, video.playsInline] = [this.stream, true, true];
    await video.play();
    find("camera").textContent = "Stop the camera";
    while (this.stream) {
      await this.guarded(() => this.answer(pixelsOf(video, video.videoWidth, video.videoHeight), "camera", rule));
      await new Promise((resolve) => requestAnimationFrame(resolve));
    }
  }

  closeCamera() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    this.stream = null;
    find("camera").textContent = "Use the camera";
  }

  async measure() {
    this.closeCamera();
    const button = /** @type {HTMLButtonElement} */ (find("run-measure"));
    button.disabled = true;
    const feeds = this.model.selfCheck.feeds(0);
    const protocol = { ...STEADY, max_s: MEASURE_S };
    try {
      const show = (/** @type {string} */ text) => (find("measure-note").textContent = `${text} …`);
      this.row = rowOf(this.model, await measure(() => this.model.run(feeds), protocol, show), protocol);
    } finally {
      button.disabled = false;
    }
    showRow(this.row);
  }
}

/**
 * Let the visitor save a value as a JSON file.
 * @param {unknown} value
 * @param {string} name
 */
function save(value, name) {
  const blob = new Blob([`${JSON.stringify(value, null, 2)}\n`], { type: "application/json" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

/** @param {Row} row */
function showRow(row) {
  const ms = (/** @type {number | null} */ value) => (value === null ? "too few runs" : `${value.toFixed(2)} ms`);
  const interval = row.low_ms === null || row.high_ms === null ? "" : ` (${row.low_ms.toFixed(2)} to ${row.high_ms.toFixed(2)})`;
  const lines = [
    ["median, 95 % interval", ms(row.median_ms) + interval],
    ["90th percentile", ms(row.p90_ms)],
    ["first inference", ms(row.first_ms)],
    ["loading the model", ms(row.load_ms)],
    ["runs, warm-up", `${row.samples_ms.length}, ${row.rounds[0].warmup_ms.length}`],
    ["backend", nameOf(row)],
    ["browser", row.browser.name],
  ];
  const body = lines.map(([name, value]) => {
    const [line, head] = [element("tr"), element("th", name)];
    head.scope = "row";
    line.append(head, element("td", value));
    return line;
  });
  find("row").replaceChildren(...body);
  find("measure-note").textContent = "";
  find("export").hidden = false;
}

main();
