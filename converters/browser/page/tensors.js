// Tensors as {dtype, shape, data}, and the conversion between real numbers and a model's numbers.

/** @typedef {import("./types.js").RealTensors} RealTensors */
/** @typedef {import("./types.js").Tensor} Tensor */
/** @typedef {import("./types.js").TensorSpec} TensorSpec */
/** @typedef {import("./types.js").Values} Values */

/** @type {Record<string, new (count: number) => Values>} */
const ARRAYS = {
  uint8: Uint8Array,
  int8: Int8Array,
  bool: Uint8Array,
  uint16: Uint16Array,
  int16: Int16Array,
  uint32: Uint32Array,
  int32: Int32Array,
  uint64: BigUint64Array,
  int64: BigInt64Array,
  float32: Float32Array,
  float64: Float64Array,
};
/** @type {Record<string, [number, number]>} */
const RANGES = { uint8: [0, 255], int8: [-128, 127], int32: [-(2 ** 31), 2 ** 31 - 1] };
// In quantization steps: scales have 24-bit precision, so an exact half may come out slightly below.
const SCALE_ERROR = 1e-4;

/**
 * The number of elements of a shape.
 * @param {readonly number[]} shape
 */
export function sizeOf(shape) {
  return shape.reduce((product, size) => product * size, 1);
}

/**
 * Return an array for `count` values of `dtype`.
 * @param {string} dtype
 * @param {number} count
 */
export function newArray(dtype, count) {
  return new ARRAYS[dtype](count);
}

/**
 * The shape of a spec with every free dimension set to 1.
 * @param {TensorSpec} spec
 */
export function concreteShape(spec) {
  return spec.shape.map((size) => (typeof size === "number" ? size : 1));
}

/**
 * Return float32 values: (q - zero_point) * scale.
 * @param {Values} data
 * @param {import("./types.js").Quantization | null} quantization
 */
export function dequantize(data, quantization) {
  const real = new Float32Array(data.length);
  const scale = quantization ? quantization.scales[0] : 1;
  const zero = quantization ? quantization.zero_points[0] : 0;
  for (let i = 0; i < data.length; i++) real[i] = (Number(data[i]) - zero) * scale;
  return real;
}

/**
 * The outputs as real numbers by name, in the shapes that they have: a free size is what the values fill.
 * @param {TensorSpec[]} specs
 * @param {Values[]} outputs
 * @returns {RealTensors}
 */
export function realTensors(specs, outputs) {
  return new Map(
    specs.map((spec, place) => {
      const data = dequantize(outputs[place], spec.quantization);
      return [spec.name, { shape: shapeOf(spec, data.length), data }];
    }),
  );
}

/**
 * @param {TensorSpec} spec
 * @param {number} count
 */
function shapeOf(spec, count) {
  const shape = concreteShape(spec);
  const free = spec.shape.findLastIndex((size) => typeof size === "string");
  if (free >= 0) shape[free] = Math.floor(count / Math.max(1, sizeOf(shape)));
  return shape;
}

/**
 * Quantize one real number as the host does: halves round up, and values outside the range are clipped.
 * @param {number} value
 * @param {TensorSpec} spec
 */
export function quantized(value, spec) {
  if (!spec.quantization) return value;
  const [low, high] = RANGES[spec.dtype];
  const step = value / spec.quantization.scales[0] + spec.quantization.zero_points[0] + 0.5 + SCALE_ERROR;
  return Math.min(high, Math.max(low, Math.floor(step)));
}

/**
 * Return sample `index` of a stacked tensor [n, ...].
 * @param {Tensor} stacked
 * @param {number} index
 * @returns {Tensor}
 */
export function sampleOf(stacked, index) {
  const shape = stacked.shape.slice(1);
  const size = sizeOf(shape);
  return { dtype: stacked.dtype, shape, data: stacked.data.subarray(index * size, (index + 1) * size) };
}

/**
 * The softmax of logits.
 * @param {Float32Array} logits
 */
export function softmax(logits) {
  const top = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = Float64Array.from(logits, (value) => Math.exp(Math.fround(value - top)));
  const sum = powers.reduce((a, b) => a + b, 0);
  return Float32Array.from(powers, (value) => value / sum);
}
