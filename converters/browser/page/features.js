// What this browser can do.

/** @typedef {Awaited<ReturnType<typeof detectFeatures>>} Features */

const HEADER = [0, 97, 115, 109, 1, 0, 0, 0];
// Modules with one function: () → v128 of i8x16.splat and popcnt; and of i8x16.relaxed_swizzle.
const SIMD = [1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];
const RELAXED_SIMD = [1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15, 253, 128, 2, 11];

/** Return the features that decide which engine builds run here. */
export async function detectFeatures() {
  const has = (/** @type {number[]} */ module) => typeof WebAssembly === "object" && WebAssembly.validate(new Uint8Array([...HEADER, ...module]));
  return {
    simd: has(SIMD),
    relaxedSimd: has(RELAXED_SIMD),
    isolated: globalThis.crossOriginIsolated === true && typeof SharedArrayBuffer === "function",
    jspi: typeof WebAssembly === "object" && "Suspending" in WebAssembly,
    cores: navigator.hardwareConcurrency ?? 1,
    gpu: await adapterOf(),
  };
}

/** Describe the WebGPU adapter: {name, isSoftware}; null if there is none. */
async function adapterOf() {
  try {
    const adapter = await /** @type {any} */ (navigator).gpu?.requestAdapter();
    if (!adapter) return null;
    const info = adapter.info ?? {};
    const name = [info.vendor, info.architecture].filter(Boolean).join(" ") || "unnamed";
    return { name, isSoftware: Boolean(info.isFallbackAdapter ?? adapter.isFallbackAdapter) || /swiftshader/i.test(name) };
  } catch {
    return null;
  }
}

/**
 * More threads than this seldom help, and on a busy machine they wait for one another.
 * @param {number} cores
 */
export function defaultThreads(cores) {
  return Math.min(4, Math.ceil(cores / 2));
}

/** The browser's name and version, such as "Chromium 156.0". */
export function browserName() {
  /** @type {{ brand: string, version: string }[]} */
  const brands = /** @type {any} */ (navigator).userAgentData?.brands ?? [];
  const brand = brands.find(({ brand }) => !/not.?a.?brand|^chromium$/i.test(brand)) ?? brands.find(({ brand }) => /chromium/i.test(brand));
  if (brand) return `${brand.brand} ${brand.version}`;
  const found = navigator.userAgent.match(/(Firefox|Edg|Chrome|Version)\/([\d.]+)/);
  return found ? `${found[1] === "Version" ? "Safari" : found[1]} ${found[2]}` : "unknown browser";
}
