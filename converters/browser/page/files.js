// Reads the artifact's files: fetched from the page's folder, checked against the manifest's sha256, and unpacked.

import { UserError } from "./errors.js";

/** @typedef {import("./types.js").Manifest} Manifest */

const GZIP = [0x1f, 0x8b];
/** @type {Map<string, Promise<Uint8Array<ArrayBuffer>>>} */
const underway = new Map();

/**
 * Start to read files, all at the same time; the next `readFile` of each takes what was read.
 * @param {Manifest} manifest
 * @param {string[]} paths
 */
export function prefetch(manifest, paths) {
  for (const path of paths) {
    const reading = read(manifest, path);
    reading.catch(() => {}); // `readFile` throws it
    underway.set(path, reading);
  }
}

/**
 * Return the bytes of a file, unpacked if it is gzip. Throws UserError if it is missing or has changed.
 * @param {Manifest} manifest
 * @param {string} path
 */
export async function readFile(manifest, path) {
  const reading = underway.get(path) ?? read(manifest, path);
  underway.delete(path);
  return reading;
}

/**
 * @param {Manifest} manifest
 * @param {string} path
 */
async function read(manifest, path) {
  const bytes = await fetchBytes(path);
  await checkDigest(manifest, path, bytes);
  return bytes[0] === GZIP[0] && bytes[1] === GZIP[1] ? gunzip(bytes) : bytes;
}

/** @param {string} path */
async function fetchBytes(path) {
  let response;
  try {
    response = await fetch(new URL(path, document.baseURI));
  } catch {
    throw new UserError("host", `${path} could not be loaded.`, "Check the connection, then reload the page.");
  }
  if (!response.ok) {
    const what = `${path} is missing from the server (status ${response.status}).`;
    throw new UserError("proof", what, "Copy the whole folder to the server again.");
  }
  return new Uint8Array(await response.arrayBuffer());
}

/**
 * @param {Manifest} manifest
 * @param {string} path
 * @param {Uint8Array<ArrayBuffer>} bytes
 */
async function checkDigest(manifest, path, bytes) {
  const expected = manifest.files[path];
  if (expected === undefined) {
    throw new UserError("proof", `${path} is not listed in manifest.json.`, "Make the artifact again with edge convert.");
  }
  if ((await sha256(bytes)) !== expected) {
    const what = `${path} has changed since the artifact was made: its sha256 differs from the manifest's.`;
    throw new UserError("proof", what, "Copy the folder to the server again, or make it again with edge convert.");
  }
}

/**
 * Unpack deflated bytes: "gzip", or "deflate-raw" as in zip archives.
 * @param {Uint8Array<ArrayBuffer>} bytes
 * @param {CompressionFormat} [format]
 */
export async function gunzip(bytes, format = "gzip") {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream(format));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/**
 * Return the hex digest. Browsers offer their own only on https and localhost; elsewhere it is computed here.
 * @param {Uint8Array<ArrayBuffer>} bytes
 */
export async function sha256(bytes) {
  const digest = crypto.subtle ? new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)) : digestOf(bytes);
  return [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * SHA-256 by FIPS 180-4.
 * @param {Uint8Array} bytes
 */
export function digestOf(bytes) {
  const { primes, state } = constants();
  const padded = new Uint8Array(Math.ceil((bytes.length + 9) / 64) * 64);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  const view = new DataView(padded.buffer);
  view.setUint32(padded.length - 8, Math.floor(bytes.length / 2 ** 29));
  view.setUint32(padded.length - 4, (bytes.length << 3) >>> 0);
  const words = new Uint32Array(64);
  for (let start = 0; start < padded.length; start += 64) addBlock(view, start, words, primes, state);
  const digest = new DataView(new ArrayBuffer(32));
  state.forEach((word, place) => digest.setUint32(4 * place, word));
  return new Uint8Array(digest.buffer);
}

/**
 * @param {DataView} view
 * @param {number} start
 * @param {Uint32Array} w
 * @param {Uint32Array} primes
 * @param {Uint32Array} state
 */
function addBlock(view, start, w, primes, state) {
  const turn = (/** @type {number} */ x, /** @type {number} */ n) => (x >>> n) | (x << (32 - n));
  for (let i = 0; i < 16; i++) w[i] = view.getUint32(start + 4 * i);
  for (let i = 16; i < 64; i++) {
    const low = turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ (w[i - 15] >>> 3);
    const high = turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ (w[i - 2] >>> 10);
    w[i] = w[i - 16] + low + w[i - 7] + high;
  }
  let [a, b, c, d, e, f, g, h] = state;
  for (let i = 0; i < 64; i++) {
    const first = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + primes[i] + w[i]) | 0;
    const second = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + first) | 0, c, b, a, (first + second) | 0];
  }
  [a, b, c, d, e, f, g, h].forEach((value, place) => (state[place] += value));
}

function constants() {
  /** @type {number[]} */
  const found = [];
  for (let n = 2; found.length < 64; n++) if (found.every((prime) => n % prime)) found.push(n);
  const fraction = (/** @type {number} */ x) => ((x - Math.floor(x)) * 2 ** 32) >>> 0;
  const primes = Uint32Array.from(found, (prime) => fraction(Math.cbrt(prime)));
  const state = Uint32Array.from(found.slice(0, 8), (prime) => fraction(Math.sqrt(prime)));
  return { primes, state };
}
