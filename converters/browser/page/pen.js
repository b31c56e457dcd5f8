// Draws what was found over a picture: in places of the picture, but with lines and text in the size of the screen.

/** @typedef {import("./types.js").Box} Box */
/** @typedef {[number, number]} Point */

const GOLDEN = 0.618034; // of the color circle from a class to the next, so that neighbors never look alike
const FIRST_HUE = 0.33;
const DARK = 140; // luma below which text on a color is white
const MASK_OPACITY = 0.55;
const EDGE = "rgb(0 0 0 / 0.6)"; // around lines, so that they are seen on any picture

/** The pen of one drawing. */
export class Pen {
  /**
   * Clear `canvas`, which covers the shown picture, for drawings in the pixels of a picture.
   * @param {HTMLCanvasElement} canvas
   * @param {{ width: number, height: number }} picture
   */
  constructor(canvas, picture) {
    const ratio = globalThis.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = canvas;
    [canvas.width, canvas.height] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
    this.context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    this.context.scale(ratio, ratio);
    this.width = width;
    this.height = height;
    this.scale = [width / picture.width, height / picture.height];
    const shorter = Math.min(width, height);
    this.stroke = Math.min(3, Math.max(1.25, shorter / 180));
    this.textSize = Math.min(16, Math.max(11, shorter / 26));
    /** @type {Box[]} */
    this.tags = [];
  }

  /** @param {Point} point */
  at([x, y]) {
    return /** @type {Point} */ ([x * this.scale[0], y * this.scale[1]]);
  }

  /**
   * The outline of a box.
   * @param {Box} box
   * @param {number} index of the color
   */
  box([left, top, right, bottom], index) {
    const inset = this.stroke / 2; // the outline stays inside of the box, and of the picture
    const [x0, y0] = this.at([left, top]);
    const [x1, y1] = this.at([right, bottom]);
    const path = new Path2D();
    path.rect(x0 + inset, y0 + inset, Math.max(1, x1 - x0 - this.stroke), Math.max(1, y1 - y0 - this.stroke));
    this.outline(path, index);
  }

  /**
   * @param {Point} from
   * @param {Point} to
   * @param {number} index
   */
  line(from, to, index) {
    const path = new Path2D();
    path.moveTo(...this.at(from));
    path.lineTo(...this.at(to));
    this.outline(path, index);
  }

  /**
   * @param {Path2D} path
   * @param {number} index
   */
  outline(path, index) {
    const { context } = this;
    context.lineCap = context.lineJoin = "round";
    [context.strokeStyle, context.lineWidth] = [EDGE, this.stroke + 1.5];
    context.stroke(path);
    [context.strokeStyle, context.lineWidth] = [colorOf(index).css, this.stroke];
    context.stroke(path);
  }

  /**
   * @param {Point[]} points
   * @param {number} index
   */
  dots(points, index) {
    const { context } = this;
    for (const point of points) {
      context.beginPath();
      context.arc(...this.at(point), this.stroke + 0.75, 0, 2 * Math.PI);
      context.fillStyle = colorOf(index).css;
      context.fill();
      [context.strokeStyle, context.lineWidth] = [EDGE, 1];
      context.stroke();
    }
  }

  /**
   * Tint the inside of a polygon, and draw its outline.
   * @param {Point[]} corners
   * @param {number} index
   */
  polygon(corners, index) {
    if (!corners.length) return;
    const path = new Path2D();
    for (const corner of corners) path.lineTo(...this.at(corner));
    path.closePath();
    this.context.globalAlpha = MASK_OPACITY;
    this.context.fillStyle = colorOf(index).css;
    this.context.fill(path);
    this.context.globalAlpha = 1;
    this.outline(path, index);
  }

  /**
   * Tint every pixel in the color of its class, but for those of `skipped`.
   * @param {{ classes: Uint16Array, width: number, height: number }} map
   * @param {number | null} skipped
   */
  mask({ classes, width, height }, skipped) {
    const image = new ImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    /** @type {Map<number, number>} */
    const colors = new Map();
    classes.forEach((index, place) => {
      if (index === skipped) return;
      if (!colors.has(index)) colors.set(index, packed(colorOf(index).rgb));
      pixels[place] = /** @type {number} */ (colors.get(index));
    });
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [width, height];
    /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d")).putImageData(image, 0, 0);
    this.context.drawImage(canvas, 0, 0, this.width, this.height);
  }

  /**
   * A text on the color of its class: above a box, or inside or below it where there is no room, beside other texts.
   * @param {Box} box
   * @param {string} text
   * @param {number} index
   */
  tag([left, top, , bottom], text, index) {
    const { context } = this;
    context.font = `600 ${this.textSize}px system-ui, sans-serif`;
    context.textBaseline = "middle";
    const height = Math.round(this.textSize * 1.4);
    const width = context.measureText(text).width + 0.7 * this.textSize;
    const [x, y] = this.at([left, top]);
    const x0 = Math.max(0, Math.min(x, this.width - width));
    const [, below] = this.at([left, bottom]);
    const places = [y - height, y, below, below - height].filter((place) => place >= 0 && place + height <= this.height);
    const isFree = (/** @type {number} */ place) => !this.tags.some((other) => areCrossing([x0, place, x0 + width, place + height], other));
    const y0 = places.find(isFree) ?? places[0] ?? 0;
    this.tags.push([x0, y0, x0 + width, y0 + height]);
    const color = colorOf(index);
    context.fillStyle = color.css;
    context.beginPath();
    context.roundRect(x0, y0, width, height, 3);
    context.fill();
    context.fillStyle = color.ink;
    context.fillText(text, x0 + 0.35 * this.textSize, y0 + height / 2 + 0.5);
  }
}

/**
 * @param {Box} one
 * @param {Box} other
 */
function areCrossing(one, other) {
  return one[0] < other[2] && other[0] < one[2] && one[1] < other[3] && other[1] < one[3];
}

/**
 * The color of a class: always the same, bright, and unlike those of its neighbors; `ink` is that of text on it.
 * @param {number} index
 */
export function colorOf(index) {
  const hue = (((FIRST_HUE + index * GOLDEN) % 1) + 1) % 1;
  const rgb = [5, 3, 1].map((n) => {
    const k = (n + 6 * hue) % 6;
    return Math.round(255 * (1 - 0.85 * Math.max(0, Math.min(k, 4 - k, 1))));
  });
  const luma = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2];
  return { rgb, css: `rgb(${rgb.join(" ")})`, ink: luma < DARK ? "#fff" : "#000" };
}

/** @param {number[]} rgb */
function packed(rgb) {
  return new Uint32Array(Uint8Array.from([...rgb, Math.round(255 * MASK_OPACITY)]).buffer)[0];
}
