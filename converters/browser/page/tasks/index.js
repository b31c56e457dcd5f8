// What a model's answers mean: one module for each task. The first that recognizes the model shows its results.

import * as classification from "./classification.js";
import * as detection from "./detection.js";
import * as instances from "./instances.js";
import * as pose from "./pose.js";
import * as segmentation from "./segmentation.js";
import * as tensors from "./tensors.js";

const TASKS = [classification, detection, segmentation, instances, pose, tensors];

/**
 * The task of the model.
 * @param {import("../types.js").Manifest} manifest
 * @param {string[] | null} labels the class names of a classifier
 * @returns {import("../types.js").Task<any> & { id: string }}
 */
export function taskOf(manifest, labels) {
  for (const task of TASKS) {
    const found = task.recognize(manifest, labels);
    if (found) return { id: task.ID, ...found };
  }
  throw new Error("no task takes this model");
}
