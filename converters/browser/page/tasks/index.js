// What a model's answers mean: one module for each task. The first that recognizes the model shows its results.

import * as classification from "./classification.js";
import * as tensors from "./tensors.js";

const TASKS = [classification, tensors];

/** Return {id, show(outputs, element)} for the model. `labels` is a list of class names, or null. */
export function taskOf(manifest, labels) {
  for (const task of TASKS) {
    const found = task.recognize(manifest, labels);
    if (found) return { id: task.ID, ...found };
  }
  throw new Error("no task takes this model");
}
