// Shows the answer to a picture: the picture with what was found drawn over it, and the same as text.

import { find } from "./dom.js";
import { Pen } from "./pen.js";

/** @typedef {import("./types.js").Picture} Picture */

/** The part of the page that shows the answers of one task. */
export class AnswerView {
  /** @param {import("./types.js").Task<any>} task */
  constructor(task) {
    this.task = task;
    this.seen = /** @type {HTMLCanvasElement} */ (find("seen"));
    this.drawn = /** @type {HTMLCanvasElement} */ (find("drawn"));
    this.redraw = () => {};
    find("answer").classList.toggle("drawn", Boolean(task.draw));
    new ResizeObserver(() => this.redraw()).observe(find("frame"));
  }

  /**
   * Show the result for `picture`, which the model saw as `fitted`.
   * @param {any} result
   * @param {Picture} picture
   * @param {Picture} fitted
   * @param {boolean} isLive whether another follows at once, so that a screen reader would not keep up
   */
  show(result, picture, fitted, isLive) {
    const { draw } = this.task;
    const shown = draw ? picture : fitted;
    find("answer").hidden = false;
    find("frame").style.setProperty("--ratio", String(shown.width / shown.height));
    find("frame").style.setProperty("--width", `${shown.width}px`);
    putPicture(shown, this.seen);
    const what = draw ? "The picture" : "The picture as the model sees it";
    this.seen.setAttribute("aria-label", `${what}: ${this.task.summary(result)}`);
    this.redraw = () => draw?.(result, new Pen(this.drawn, picture));
    this.redraw();
    find("result").setAttribute("aria-live", isLive ? "off" : "polite");
    const open = Boolean(find("result").querySelector("details[open]"));
    find("result").replaceChildren(this.task.list(result));
    for (const details of open ? find("result").querySelectorAll("details") : []) details.open = true;
  }
}

/**
 * @param {Picture} picture
 * @param {HTMLCanvasElement} canvas
 */
function putPicture({ width, height, data }, canvas) {
  [canvas.width, canvas.height] = [width, height];
  const image = new ImageData(width, height);
  for (let from = 0, to = 0; from < data.length; from += 3, to += 4) {
    image.data[to] = data[from];
    image.data[to + 1] = data[from + 1];
    image.data[to + 2] = data[from + 2];
    image.data[to + 3] = 255;
  }
  /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d")).putImageData(image, 0, 0);
}
