// The shapes of values that several modules share. For people and for `tsc --checkJs`; nothing runs here.

/**
 * @typedef {{ scales: number[], zero_points: number[], axis: number | null }} Quantization
 * @typedef {{ name: string, dtype: string, shape: (number | string)[], quantization: Quantization | null }} TensorSpec
 * @typedef {Uint8Array | Int8Array | Uint16Array | Int16Array | Uint32Array | Int32Array} Whole
 * @typedef {Whole | BigUint64Array | BigInt64Array | Float32Array | Float64Array} Values
 * @typedef {{ dtype: string, shape: number[], data: Values }} Tensor
 * @typedef {Map<string, { shape: number[], data: Float32Array }>} RealTensors real values by the output's name
 *
 * @typedef {object} Session an open model
 * @property {string} device
 * @property {number} threads
 * @property {Promise<{ reason: string }> | null} lost resolves when the WebGPU device is lost
 * @property {(feeds: Tensor[]) => Promise<Values[]>} run
 * @property {() => Promise<void>} reset forgets the state of a model that keeps one
 * @property {() => Promise<void>} close
 *
 * @typedef {object} Rule how a picture becomes the input, as `Preprocess` in `runtimes/artifact/manifest.py`
 * @property {"shorter_side" | "stretch" | "letterbox"} resize
 * @property {number} size
 * @property {[number, number]} crop
 * @property {"nearest" | "bilinear" | "bicubic"} method
 * @property {"NHWC" | "NCHW"} layout
 * @property {"RGB" | "BGR" | "GRAY"} color
 * @property {number[]} mean
 * @property {number[]} scale
 * @property {number} [pad]
 *
 * @typedef {{ width: number, height: number, data: Uint8ClampedArray }} Picture RGB bytes
 * @typedef {object} Placement input pixel = picture pixel × scale + offset, for x and y
 * @property {[number, number]} size width and height of the picture
 * @property {[number, number]} scale
 * @property {[number, number]} offset
 */

/**
 * @typedef {[number, number, number, number]} Box left, top, right, bottom
 * @typedef {{ confidence: number, iou: number, most: number }} Limits
 * @typedef {{ box: Box, score: number, index: number, points: [number, number][] }} Candidate
 *
 * @typedef {object} Manifest `manifest.json`
 * @property {string} name
 * @property {string} format
 * @property {string} precision
 * @property {string} model
 * @property {Record<string, string>} files
 * @property {TensorSpec[]} inputs
 * @property {TensorSpec[]} outputs
 * @property {Rule | null} preprocess
 * @property {{ kind: "probability" | "logit", label_offset: number, labels: string | null } | null} output
 * @property {SelfCheckRule | null} selfcheck
 * @property {{ browser: { engine: "litert_js" | "ort_web", version: string, builds: string[], outputs?: TensorSpec[], decoder?: Decoder } }} conversion
 * @property {{ output: string, axis: number, parts: string[] }[]} [join]
 * @property {Record<string, string>} [states] input → the output that is its value for the next inference
 *
 * @typedef {{ metric: string, tolerance: number, outputs?: OutputCheck[], stateful?: boolean }} SelfCheckRule
 * @typedef {{ name: string, kind: "values" | "labels" | "rows", parts: Part[] }} OutputCheck
 * @typedef {{ axis: number, start: number, stop: number, span: number, natural: boolean, step: number }} Part
 */

/**
 * A model's task: `decode` gives results in places of the picture, `toJson` what `edge run --json` does, `summary` a
 * sentence for those who do not see the picture. Without `draw`, the picture is shown as the model sees it.
 * @template T
 * @typedef {object} Task
 * @property {(outputs: RealTensors, placement: Placement) => T} decode
 * @property {(result: T) => unknown} toJson
 * @property {(result: T) => string} summary
 * @property {(result: T) => Element} list
 * @property {(result: T, pen: import("./pen.js").Pen) => void} [draw]
 */

/**
 * @typedef {any} Decoder a decoder of `runtimes/decoders` and its parameters, as the conversion wrote them
 */
export {};
