// Elements of the page.

/**
 * The element with an id.
 * @param {string} id
 */
export function find(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id));
}

/**
 * A new element with a text.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} name
 * @param {string} [text]
 */
export function element(name, text = "") {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}
