// The outlines of masks, as in `runtimes/decoders/polygons.py`.

/** @typedef {[number, number]} Point */
/** @typedef {{ width: number, height: number, has: (x: number, y: number) => boolean }} Mask */

// The direction after a corner where two parts touch: right turns first, which keeps the parts apart.
/** @type {Record<string, Point[]>} */
const TURNS = {
  "1,0": [[0, 1], [1, 0], [0, -1]],
  "0,1": [[-1, 0], [0, 1], [1, 0]],
  "-1,0": [[0, -1], [-1, 0], [0, 1]],
  "0,-1": [[1, 0], [0, -1], [-1, 0]],
};

/**
 * The outline of the largest part of a mask, along the edges of its pixels, clockwise, without points on straight lines.
 * Holes are left out; a mask without any pixel gives [].
 * @param {Mask} mask
 * @returns {Point[]}
 */
export function outline(mask) {
  const found = loopsOf(edgesOf(mask)).map(cornersOf);
  return found.reduce((largest, one) => (areaOf(one) > areaOf(largest) ? one : largest), found[0] ?? []);
}

/**
 * The next corners of each corner, for edges between a pixel of the mask and none, with the mask on the right.
 * @param {Mask} mask
 */
function edgesOf({ width, height, has }) {
  /** @type {Map<string, Point[]>} */
  const edges = new Map();
  // The neighbor's direction, and where the edge begins and ends: above, right, below, left.
  const sides = [
    [[0, -1], [0, 0], [1, 0]],
    [[1, 0], [1, 0], [1, 1]],
    [[0, 1], [1, 1], [0, 1]],
    [[-1, 0], [0, 1], [0, 0]],
  ];
  const isIn = (/** @type {number} */ x, /** @type {number} */ y) => x >= 0 && y >= 0 && x < width && y < height && has(x, y);
  for (const [[dx, dy], start, end] of sides) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        if (!has(x, y) || isIn(x + dx, y + dy)) continue;
        const corner = String([x + start[0], y + start[1]]);
        edges.set(corner, [...(edges.get(corner) ?? []), [x + end[0], y + end[1]]]);
      }
    }
  }
  return edges;
}

/**
 * Chain the edges into closed loops; uses them up.
 * @param {Map<string, Point[]>} edges
 */
function loopsOf(edges) {
  const loops = [];
  for (let [first] = edges.keys(); first !== undefined; [first] = edges.keys()) {
    let here = /** @type {Point} */ (first.split(",").map(Number));
    let direction = "1,0";
    const loop = [here];
    for (let ways = edges.get(first); ways; ways = edges.get(String(here))) {
      const [x, y] = here;
      const wanted = TURNS[direction].map(([dx, dy]) => String([x + dx, y + dy]));
      const known = ways.map(String);
      const place = Math.max(0, known.indexOf(wanted.find((one) => known.includes(one)) ?? known[0]));
      const [next] = ways.splice(place, 1);
      if (!ways.length) edges.delete(String(here));
      direction = String([next[0] - x, next[1] - y]);
      here = next;
      loop.push(here);
    }
    loops.push(loop.slice(0, -1));
  }
  return loops;
}

/** @param {Point[]} loop */
function cornersOf(loop) {
  return loop.filter(([x, y], place) => {
    const [x0, y0] = loop[(place || loop.length) - 1];
    const [x1, y1] = loop[(place + 1) % loop.length];
    return (x - x0) * (y1 - y) !== (y - y0) * (x1 - x);
  });
}

/**
 * By the shoelace formula; negative for corners that are counter-clockwise.
 * @param {Point[]} polygon
 */
function areaOf(polygon) {
  return polygon.reduce((sum, [x, y], place) => {
    const [x1, y1] = polygon[(place + 1) % polygon.length];
    return sum + (x * y1 - x1 * y) / 2;
  }, 0);
}
