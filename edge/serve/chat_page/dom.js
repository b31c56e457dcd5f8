/** Elements, icons, notices and the clipboard. */

import { t } from "./words.js";

export const $ = (id) => document.getElementById(id);

/** Return a new element: make("p", {className: "note"}, "text", other) */
export function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const use = document.createElementNS(space, "use");
  use.setAttribute("href", "#i-" + name);
  svg.setAttribute("aria-hidden", "true");
  svg.append(use);
  return svg;
}

/** Return a button that shows an icon; screen readers say `label`. */
export function iconButton(name, label, onclick) {
  const button = make("button", { type: "button", className: "icon", title: label, onclick }, icon(name));
  button.setAttribute("aria-label", label);
  return button;
}

let noticeEnd = 0;

/** Show a short message, with a button that calls `act` if one is passed. */
export function notice(text, label = "", act = null) {
  const [span, button] = $("notice").children;
  span.textContent = text;
  button.textContent = label;
  button.hidden = !act;
  button.onclick = () => { $("notice").hidden = true; act(); };
  $("notice").hidden = false;
  clearTimeout(noticeEnd);
  noticeEnd = setTimeout(() => { $("notice").hidden = true; }, act ? 8000 : 4000);
}

export async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = make("textarea", { className: "visually-hidden", value: text });  // a page over plain http has no clipboard
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/** Translate the page as it was sent: its texts, placeholders, titles and labels. */
export function translateDocument() {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim();
    if (text) walker.currentNode.data = walker.currentNode.data.replace(text, () => t(text));
  }
  for (const node of document.body.querySelectorAll("[aria-label], [placeholder], [title]")) {
    for (const name of ["aria-label", "placeholder", "title"]) {
      if (node.hasAttribute(name)) node.setAttribute(name, t(node.getAttribute(name)));
    }
  }
}
