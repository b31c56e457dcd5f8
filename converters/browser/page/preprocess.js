// Converts a picture to the model's input by the manifest's rule, as in `edge/inference/images.py` and `runtimes/tensors.py`.

import { UserError } from "./errors.js";
import { resize } from "./resize.js";
import { concreteShape, newArray, quantized, sizeOf } from "./tensors.js";

const LONGEST_SIDE = 16384;

/** Decode a picture file to {width, height, data: RGB bytes}, rotated by its EXIF orientation, its colors unchanged. */
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

/** The pixels of anything that a canvas draws, such as a video's frame. */
export function pixelsOf(source, width, height) {
  if (Math.max(width, height) > LONGEST_SIDE) {
    throw new UserError("input", `The picture of ${width} × ${height} pixels is too large.`, "Make it smaller.");
  }
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(source, 0, 0);
  const { data: rgba } = context.getImageData(0, 0, width, height);
  const data = new Uint8ClampedArray(width * height * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4, to += 3) {
    [data[to], data[to + 1], data[to + 2]] = [rgba[from], rgba[from + 1], rgba[from + 2]];
  }
  return { width, height, data };
}

/** Resize and crop by the rule; the pixels of `edge run`. */
export function fitPicture(picture, rule) {
  const [height, width] = rule.crop;
  if (rule.resize === "stretch") return resize(picture, width, height, rule.method);
  const [shorter, longer] = [Math.min(picture.width, picture.height), Math.max(picture.width, picture.height)];
  const long = Math.trunc((rule.size * longer) / shorter);
  const size = picture.width < picture.height ? [rule.size, long] : [long, rule.size];
  if (size[0] < width || size[1] < height) {
    const what = `The picture, resized to ${size[0]} × ${size[1]}, is smaller than the model's input ${width} × ${height}.`;
    throw new UserError("input", what, "Crop it to a shape closer to a square.");
  }
  return crop(resize(picture, ...size, rule.method), width, height);
}

function crop(picture, width, height) {
  const [left, top] = [even((picture.width - width) / 2), even((picture.height - height) / 2)];
  const data = new Uint8ClampedArray(width * height * 3);
  for (let y = 0; y < height; y++) {
    const from = 3 * ((top + y) * picture.width + left);
    data.set(picture.data.subarray(from, from + 3 * width), 3 * y * width);
  }
  return { width, height, data };
}

/** Python's round: halves go to the even number. */
function even(value) {
  const low = Math.floor(value);
  if (value - low !== 0.5) return Math.round(value);
  return low % 2 ? low + 1 : low;
}

/** The model's input tensor of a fitted picture. */
export function toInput(picture, spec, rule) {
  const data = newArray(spec.dtype, sizeOf(concreteShape(spec)));
  const plane = picture.width * picture.height;
  for (let pixel = 0; pixel < plane; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
      const value = picture.data[3 * pixel + (rule.color === "RGB" ? channel : 2 - channel)];
      const real = (value - rule.mean[channel]) * rule.scale[channel];
      data[rule.layout === "NCHW" ? channel * plane + pixel : 3 * pixel + channel] = quantized(real, spec);
    }
  }
  return { dtype: spec.dtype, shape: concreteShape(spec), data };
}

/** The rule as a sentence. */
export function describeRule(rule) {
  const [height, width] = rule.crop;
  const fit = rule.resize === "stretch" ? `stretched to ${width} × ${height}` : `shorter side ${rule.size}, center ${width} × ${height}`;
  return `${fit}, ${rule.method} as Pillow computes it`;
}
