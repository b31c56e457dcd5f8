// Reads .npz files of numpy: a zip archive of .npy arrays, stored or deflated.

import { UserError } from "./errors.js";
import { gunzip } from "./files.js";

/** @type {Record<string, [string, new (buffer: ArrayBuffer) => any]>} */
const TYPES = {
  "|u1": ["uint8", Uint8Array],
  "|i1": ["int8", Int8Array],
  "|b1": ["bool", Uint8Array],
  "<u2": ["uint16", Uint16Array],
  "<i2": ["int16", Int16Array],
  "<i4": ["int32", Int32Array],
  "<u4": ["uint32", Uint32Array],
  "<i8": ["int64", BigInt64Array],
  "<u8": ["uint64", BigUint64Array],
  "<f4": ["float32", Float32Array],
  "<f8": ["float64", Float64Array],
};

/**
 * Return the arrays of an .npz by name: {dtype, shape, data}.
 * @param {Uint8Array<ArrayBuffer>} bytes
 */
export async function readNpz(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const arrays = new Map();
  for (const entry of entries(view, bytes)) {
    const start = entry.offset + 30 + view.getUint16(entry.offset + 26, true) + view.getUint16(entry.offset + 28, true);
    const packed = bytes.subarray(start, start + entry.size);
    const npy = entry.method === 0 ? packed : await gunzip(packed, "deflate-raw");
    arrays.set(entry.name.replace(/\.npy$/, ""), readNpy(npy, entry.name));
  }
  return arrays;
}

/**
 * List the archive's central directory, whose sizes are right even where those of local headers are not.
 * @param {DataView} view
 * @param {Uint8Array} bytes
 */
function entries(view, bytes) {
  let end = bytes.length - 22;
  while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end--;
  if (end < 0) throw broken("it is not a zip archive");
  const found = [];
  let at = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0; left--) {
    const nameLength = view.getUint16(at + 28, true);
    found.push({
      method: view.getUint16(at + 10, true),
      size: view.getUint32(at + 20, true),
      offset: view.getUint32(at + 42, true),
      name: new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + nameLength)),
    });
    at += 46 + nameLength + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  }
  return found;
}

/**
 * @param {Uint8Array} bytes
 * @param {string} name
 * @returns {import("./types.js").Tensor}
 */
function readNpy(bytes, name) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const isShort = bytes[6] === 1;
  const start = (isShort ? 10 : 12) + (isShort ? view.getUint16(8, true) : view.getUint32(8, true));
  const header = new TextDecoder().decode(bytes.subarray(isShort ? 10 : 12, start));
  const [, descr] = header.match(/'descr': '([^']+)'/) ?? [];
  const [, sizes] = header.match(/'shape': \(([^)]*)\)/) ?? [];
  if (!(descr in TYPES) || sizes === undefined) throw broken(`${name} holds ${descr}`);
  const shape = sizes.split(",").filter((size) => size.trim()).map(Number);
  const [dtype, kind] = TYPES[descr];
  const data = new kind(bytes.slice(start).buffer);
  return { dtype, shape, data: header.includes("'fortran_order': True") ? inRowOrder(data, shape) : data };
}

/**
 * Reorder values that are stored column by column.
 * @param {any} data
 * @param {number[]} shape
 */
function inRowOrder(data, shape) {
  const result = new data.constructor(data.length);
  const strides = shape.map((_, axis) => shape.slice(0, axis).reduce((a, b) => a * b, 1));
  for (let place = 0; place < data.length; place++) {
    let rest = place;
    let from = 0;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += (rest % shape[axis]) * strides[axis];
      rest = Math.floor(rest / shape[axis]);
    }
    result[place] = data[from];
  }
  return result;
}

/** @param {string} what */
function broken(what) {
  return new UserError("input", `The self-check cannot be read: ${what}.`, "Make the artifact again with edge convert.");
}
