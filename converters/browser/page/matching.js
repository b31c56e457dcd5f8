// Engines name the same tensor differently: pair the tensors of two lists.

/** @typedef {{ name: string, dtype?: string, shape?: ArrayLike<number | string> & Iterable<number | string> }} Named */

/**
 * For each of `wanted`, return the place of the same tensor in `known`: by name, else by shape and dtype, else place.
 * @param {Named[]} wanted
 * @param {Named[]} known
 */
export function matchTensors(wanted, known) {
  const free = new Set(known.keys());
  const places = wanted.map(() => -1);
  /** @type {((one: Named, other: Named) => boolean)[]} */
  const rules = [
    (one, other) => one.name === other.name,
    (one, other) => `:${other.name}:`.includes(`_${one.name}:`) || `:${one.name}:`.includes(`_${other.name}:`),
    (one, other) => one.dtype === other.dtype && sameShape(one.shape, other.shape),
    () => true,
  ];
  for (const fits of rules) {
    wanted.forEach((one, place) => {
      if (places[place] >= 0) return;
      const found = [...free].find((index) => fits(one, known[index]));
      if (found === undefined) return;
      places[place] = found;
      free.delete(found);
    });
  }
  return places;
}

/**
 * @param {Named["shape"]} one
 * @param {Named["shape"]} other
 */
function sameShape(one, other) {
  return one !== undefined && other !== undefined && one.length === other.length && [...one].every((size, axis) => size === other[axis]);
}
