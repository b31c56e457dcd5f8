// Converts a picture to the model's input by the manifest's rule, as in `edge/inference/images.py` and `runtimes/tensors.py`.

import { UserError } from "./errors.js";
import { resize } from "./resize.js";
import { concreteShape, newArray, quantized, sizeOf } from "./tensors.js";

/** @typedef {import("./types.js").Picture} Picture */
/** @typedef {import("./types.js").Placement} Placement */
/** @typedef {import("./types.js").Rule} Rule */
/** @typedef {import("./types.js").TensorSpec} TensorSpec */

const LONGEST_SIDE = 16384;

/**
 * Decode a picture file, rotated by its EXIF orientation, its colors unchanged.
 * @param {Blob} blob
 * @returns {Promise<Picture>}
 */
export async function decodePicture(blob) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch {
    throw new UserError("input", "This file cannot be read as a picture.", "Choose a JPEG, PNG or WebP file.");
  }
  try {
    return pixelsOf(bitmap, bitmap.width, bitmap.height);
  } finally {
    bitmap.close();
  }
}

/**
 * The pixels of anything that a canvas draws, such as a video's frame.
 * @param {CanvasImageSource} source
 * @param {number} width
 * @param {number} height
 * @returns {Picture}
 */
export function pixelsOf(source, width, height) {
  if (Math.max(width, height) > LONGEST_SIDE) {
    throw new UserError("input", `The picture of ${width} × ${height} pixels is too large.`, "Make it smaller.");
  }
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d", { willReadFrequently: true }));
  context.drawImage(source, 0, 0);
  const { data: rgba } = context.getImageData(0, 0, width, height);
  const data = new Uint8ClampedArray(width * height * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4, to += 3) {
    data[to] = rgba[from];
    data[to + 1] = rgba[from + 1];
    data[to + 2] = rgba[from + 2];
  }
  return { width, height, data };
}

/**
 * Resize and crop by the rule: the pixels of `edge run`, and where the picture lies in them.
 * @param {Picture} picture
 * @param {Rule} rule
 * @returns {Picture & { placement: Placement }}
 */
export function fitPicture(picture, rule) {
  const [height, width] = rule.crop;
  if (rule.resize === "letterbox") return letterboxed(picture, rule);
  if (rule.resize === "stretch") return cropped(picture, resize(picture, width, height, rule.method), width, height);
  const [shorter, longer] = [Math.min(picture.width, picture.height), Math.max(picture.width, picture.height)];
  const long = Math.trunc((rule.size * longer) / shorter);
  const size = picture.width < picture.height ? [rule.size, long] : [long, rule.size];
  if (size[0] < width || size[1] < height) {
    const what = `The picture, resized to ${size[0]} × ${size[1]}, is smaller than the model's input ${width} × ${height}.`;
    throw new UserError("input", what, "Crop it to a shape closer to a square.");
  }
  return cropped(picture, resize(picture, size[0], size[1], rule.method), width, height);
}

/**
 * Scale a picture to fit into the input, in the middle of a gray area.
 * @param {Picture} picture
 * @param {Rule} rule
 */
function letterboxed(picture, { crop: [height, width], method, pad = 0 }) {
  const factor = Math.min(width / picture.width, height / picture.height);
  const inside = resize(picture, Math.max(1, even(picture.width * factor)), Math.max(1, even(picture.height * factor)), method);
  const [left, top] = [(width - inside.width) >> 1, (height - inside.height) >> 1];
  const data = new Uint8ClampedArray(width * height * 3).fill(pad);
  for (let y = 0; y < inside.height; y++) {
    const row = inside.data.subarray(3 * y * inside.width, 3 * (y + 1) * inside.width);
    data.set(row, 3 * ((top + y) * width + left));
  }
  return { width, height, data, placement: placementOf(picture, inside, left, top) };
}

/**
 * The middle of a resized picture.
 * @param {Picture} picture
 * @param {Picture} resized
 * @param {number} width
 * @param {number} height
 */
function cropped(picture, resized, width, height) {
  const [left, top] = [even((resized.width - width) / 2), even((resized.height - height) / 2)];
  const data = new Uint8ClampedArray(width * height * 3);
  for (let y = 0; y < height; y++) {
    const from = 3 * ((top + y) * resized.width + left);
    data.set(resized.data.subarray(from, from + 3 * width), 3 * y * width);
  }
  return { width, height, data, placement: placementOf(picture, resized, -left, -top) };
}

/**
 * @param {Picture} picture
 * @param {Picture} resized
 * @param {number} left
 * @param {number} top
 * @returns {Placement}
 */
function placementOf(picture, resized, left, top) {
  const scale = /** @type {[number, number]} */ ([resized.width / picture.width, resized.height / picture.height]);
  return { size: [picture.width, picture.height], scale, offset: [left, top] };
}

/**
 * Python's round: halves go to the even number.
 * @param {number} value
 */
function even(value) {
  const low = Math.floor(value);
  if (value - low !== 0.5) return Math.round(value);
  return low % 2 ? low + 1 : low;
}

/**
 * The model's inputs for a fitted picture; those beside it are states, which begin with zeros.
 * @param {Picture} picture
 * @param {TensorSpec[]} specs
 * @param {Rule} rule
 */
export function toInputs(picture, specs, rule) {
  const place = Math.max(0, specs.findIndex(isPicture));
  return specs.map((spec, input) => {
    if (input === place) return toInput(picture, spec, rule);
    const shape = concreteShape(spec);
    const data = newArray(spec.dtype, sizeOf(shape));
    const zero = quantized(0, spec);
    return { dtype: spec.dtype, shape, data: spec.dtype === "int64" ? data : data.fill(/** @type {never} */ (zero)) };
  });
}

/** @param {TensorSpec} spec */
function isPicture({ shape }) {
  return shape.length === 4 && (shape[1] === 3 || shape[3] === 3) && (shape[0] === 1 || typeof shape[0] === "string");
}

/**
 * The gray of a pixel, with the rounding of Pillow's mode L.
 * @param {Uint8ClampedArray} data
 * @param {number} pixel
 */
function luma(data, pixel) {
  const [red, green, blue] = [data[3 * pixel], data[3 * pixel + 1], data[3 * pixel + 2]];
  return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >>> 16;
}

/** @param {number[]} values */
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/**
 * The model's input tensor of a fitted picture.
 * @param {Picture} picture
 * @param {TensorSpec} spec
 * @param {Rule} rule
 */
export function toInput(picture, spec, rule) {
  const data = newArray(spec.dtype, sizeOf(concreteShape(spec)));
  const plane = picture.width * picture.height;
  const isGray = rule.color === "GRAY";
  const channels = isGray ? 1 : 3;
  const [means, scales] = isGray ? [[mean(rule.mean)], [mean(rule.scale)]] : [rule.mean, rule.scale];
  for (let pixel = 0; pixel < plane; pixel++) {
    for (let channel = 0; channel < channels; channel++) {
      const place = 3 * pixel + (rule.color === "RGB" ? channel : 2 - channel);
      const value = isGray ? luma(picture.data, pixel) : picture.data[place];
      const real = (value - means[channel]) * scales[channel];
      data[rule.layout === "NCHW" ? channel * plane + pixel : channels * pixel + channel] = quantized(real, spec);
    }
  }
  return { dtype: spec.dtype, shape: concreteShape(spec), data };
}

/**
 * The rule as a sentence.
 * @param {Rule} rule
 */
export function describeRule(rule) {
  const [height, width] = rule.crop;
  const fits = {
    stretch: `stretched to ${width} × ${height}`,
    letterbox: `fitted into ${width} × ${height}`,
    shorter_side: `shorter side ${rule.size}, center ${width} × ${height}`,
  };
  return `${fits[rule.resize]}, ${rule.method} as Pillow computes it`;
}
