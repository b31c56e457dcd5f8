// The output layout of DETR and its relatives, as in `runtimes/decoders/detr.py`.

import { softmax } from "../tensors.js";
import { best, confident, cornersOfCenter, inPixels, misfit, rowsOf, sigmoid } from "./boxes.js";

/**
 * One box (center and size, as shares) and one logit or probability per class for each query; nothing to suppress.
 * @param {import("../types.js").Decoder} decoder
 * @param {import("../types.js").RealTensors} outputs
 */
export function queries({ boxes, logits, size, has_no_object: hasNoObject, are_logits: areLogits, limits }, outputs) {
  const [rows, scores] = [rowsOf(outputs, boxes, 4), rowsOf(outputs, logits)];
  if (scores.length !== rows.length) throw misfit(logits, [scores.length]);
  const found = rows.map((row, place) => {
    const values = scores[place];
    const shares = !areLogits ? values : hasNoObject ? softmax(values) : values.map(sigmoid);
    return { box: inPixels(cornersOfCenter(row), size), ...best(hasNoObject ? shares.subarray(0, -1) : shares), points: [] };
  });
  return confident(found, limits);
}
