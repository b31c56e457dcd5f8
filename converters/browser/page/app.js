// The page: opens the model, shows whether it is proven, runs it on pictures, and measures it.

import { asUserError, UserError } from "./errors.js";
import { nameOf, ProvenModel } from "./backends.js";
import { browserName, detectFeatures } from "./features.js";
import { readFile } from "./files.js";
import { isolate } from "./isolation.js";
import { readJob, runJob } from "./job.js";
import { decodePicture, describeRule, fitPicture, pixelsOf, toInput } from "./preprocess.js";
import { measure, STEADY } from "./measure.js";
import { rowOf } from "./bench_row.js";
import { taskOf } from "./tasks/index.js";

const MEASURE_S = 10;
const find = (id) => document.getElementById(id);

async function main() {
  const job = await readJob();
  if (!job) await isolate();
  try {
    const manifest = await readManifest();
    document.title = `${manifest.name} – edge`;
    find("name").textContent = manifest.name;
    find("facts").textContent = factsOf(manifest);
    const features = await detectFeatures();
    const open = (wanted, onProgress) => openModel(manifest, features, wanted, onProgress);
    if (job) await runJob(job, open);
    else new Page(manifest, await open({}, showProgress)).start();
  } catch (error) {
    showFailure(asUserError(error, "The page failed"));
  } finally {
    document.documentElement.dataset.state = find("verdict").dataset.state;
  }
}

async function readManifest() {
  const response = await fetch("manifest.json");
  if (!response.ok) throw new UserError("host", "manifest.json is missing from the server.", "Copy the whole folder to it.");
  return response.json();
}

function factsOf(manifest) {
  const { engine, version } = manifest.conversion.browser;
  const name = { litert_js: "LiteRT.js", ort_web: "ONNX Runtime Web" }[engine];
  return `${manifest.format} ${manifest.precision}, ${name} ${version}, ${browserName()}`;
}

async function openModel(manifest, features, wanted, onProgress) {
  const model = await ProvenModel.open(manifest, features, wanted, onProgress);
  showVerdict(model, `Proven on ${nameOf(model.session)}: first and second inference`);
  return model;
}

function showProgress(text) {
  setVerdict("working", `Checking: ${text} …`, "");
}

function showVerdict(model, headline) {
  setVerdict("passed", `${headline}.`, `The answers here are those of the source: ${model.verdict.message}.`);
  find("notes").replaceChildren(...model.notes.map(asItem));
}

function showFailure({ branch, message, hint }) {
  const word = branch === "proof" ? "Proof failed. " : "This does not run here. ";
  setVerdict("failed", word + message, hint);
}

function setVerdict(state, headline, detail) {
  find("verdict").dataset.state = state;
  find("headline").textContent = headline;
  find("detail").textContent = detail;
}

function asItem(text) {
  const item = document.createElement("li");
  item.textContent = text;
  return item;
}

/** The usable page of a proven model. One inference runs at a time. */
class Page {
  constructor(manifest, model) {
    this.manifest = manifest;
    this.model = model;
    this.row = null;
    this.busy = Promise.resolve();
  }

  async start() {
    const labels = this.manifest.output?.labels;
    const text = labels ? new TextDecoder().decode(await readFile(this.manifest, labels)) : null;
    this.task = taskOf(this.manifest, text?.trimEnd().split("\n") ?? null);
    if (this.manifest.preprocess) this.takePictures();
    find("measure").hidden = false;
    find("run-measure").addEventListener("click", () => this.guarded(() => this.measure()));
    find("export").addEventListener("click", () => this.export());
    this.guarded(() => this.proveWhenIdle());
  }

  /** Run `work` after what is running now, and show the error that it throws. */
  guarded(work) {
    this.busy = this.busy.then(() => this.model.withFallback(work, showProgress)).catch((error) => {
      const failure = asUserError(error, "The model failed");
      if (failure.branch === "input") find("picture-note").textContent = `${failure.message} ${failure.hint}`;
      else this.stop(failure);
    });
    return this.busy;
  }

  /** Disable the page after a failed proof. */
  stop(failure) {
    showFailure(failure);
    for (const id of ["try", "measure"]) find(id).hidden = true;
  }

  async proveWhenIdle() {
    const pause = () => new Promise((resolve) => (self.requestIdleCallback ?? setTimeout)(resolve));
    await this.model.proveLongRun(pause);
    showVerdict(this.model, `Proven on ${nameOf(this.model.session)}: first, second and 100th inference`);
    find("verdict").dataset.inferences = "100";
  }

  takePictures() {
    find("try").hidden = false;
    find("rule").textContent = `Pictures are prepared here: ${describeRule(this.manifest.preprocess)}. They stay on this device.`;
    const zone = find("try");
    find("file").addEventListener("change", ({ target }) => target.files[0] && this.answerFile(target.files[0]));
    zone.addEventListener("dragover", (event) => event.preventDefault());
    zone.addEventListener("drop", (event) => {
      event.preventDefault();
      if (event.dataTransfer.files[0]) this.answerFile(event.dataTransfer.files[0]);
    });
    find("camera").hidden = !navigator.mediaDevices?.getUserMedia;
    find("camera").addEventListener("click", () => this.toggleCamera());
  }

  answerFile(file) {
    this.closeCamera();
    return this.guarded(async () => this.answer(await decodePicture(file)));
  }

  /** Show the picture as the model sees it, and the model's answer. */
  async answer(picture) {
    const fitted = fitPicture(picture, this.manifest.preprocess);
    draw(fitted, find("seen"));
    const began = performance.now();
    const outputs = await this.model.run([toInput(fitted, this.manifest.inputs[0], this.manifest.preprocess)]);
    const took = performance.now() - began;
    this.task.show(outputs, find("result"));
    find("picture-note").textContent = `${picture.width} × ${picture.height} pixels, answered in ${took.toFixed(1)} ms`;
    find("answer").hidden = false;
  }

  async toggleCamera() {
    if (this.stream) return this.closeCamera();
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch {
      find("picture-note").textContent = "The camera could not be opened. Allow it for this page, or choose a picture.";
      find("answer").hidden = false;
      return;
    }
    const video = document.createElement("video");
    [video.srcObject, video.muted, video.playsInline] = [this.stream, true, true];
    await video.play();
    find("camera").textContent = "Stop the camera";
    while (this.stream) {
      await this.guarded(() => this.answer(pixelsOf(video, video.videoWidth, video.videoHeight)));
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
    find("run-measure").disabled = true;
    const feeds = this.model.selfCheck.feeds(0);
    const protocol = { ...STEADY, max_s: MEASURE_S };
    try {
      const show = (text) => (find("measure-note").textContent = `${text} …`);
      this.row = rowOf(this.model, await measure(() => this.model.run(feeds), protocol, show), protocol);
    } finally {
      find("run-measure").disabled = false;
    }
    showRow(this.row);
  }

  export() {
    const blob = new Blob([`${JSON.stringify([this.row], null, 2)}\n`], { type: "application/json" });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${this.manifest.name}-browser.json`;
    link.click();
    URL.revokeObjectURL(link.href);
  }
}

function draw({ width, height, data }, canvas) {
  [canvas.width, canvas.height] = [width, height];
  const image = new ImageData(width, height);
  for (let from = 0, to = 0; from < data.length; from += 3, to += 4) {
    image.data.set([data[from], data[from + 1], data[from + 2], 255], to);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function showRow(row) {
  const ms = (value) => (value === null ? "too few runs" : `${value.toFixed(2)} ms`);
  const interval = row.low_ms === null ? "" : ` (${row.low_ms.toFixed(2)} to ${row.high_ms.toFixed(2)})`;
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
    const line = document.createElement("tr");
    const head = document.createElement("th");
    const cell = document.createElement("td");
    head.scope = "row";
    [head.textContent, cell.textContent] = [name, value];
    line.append(head, cell);
    return line;
  });
  find("row").replaceChildren(...body);
  find("measure-note").textContent = "";
  find("export").hidden = false;
}

main();
