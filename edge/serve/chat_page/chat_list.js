/** The list of chats: open, search, rename, delete, export and import. */

import { allChats, chatFrom, contains, deleteChat, keepChat } from "./chats.js";
import { $, iconButton, make, notice } from "./dom.js";
import { t } from "./words.js";

/** Show the stored chats that contain the words of the search; `current` is the shown one, `open` shows another. */
export function listChats(current, open, onDeleted) {
  const words = $("search").value.trim().toLowerCase();
  const all = allChats(), found = words ? all.filter((one) => contains(one, words)) : all;
  $("search").hidden = !all.length;
  $("chats").replaceChildren(...found.map((one) => item(one, current, open, onDeleted)));
  if (words && !found.length) $("chats").append(make("li", { className: "nothing" }, t("Nothing found")));
}

function item(one, current, open, onDeleted) {
  const isShown = one.id === current.id;
  const button = make("button", { type: "button", className: "open", title: one.title, onclick: () => open(one) }, make("span", {}, one.title));
  if (isShown) button.setAttribute("aria-current", "true");
  const node = make("li", { className: isShown ? "now" : "" }, button);
  const again = () => listChats(current, open, onDeleted);
  node.append(
    iconButton("edit", t("Rename {title}", { title: one.title }), () => rename(node, one, isShown ? current : one, again)),
    iconButton("bin", t("Delete {title}", { title: one.title }), () => { deleteChat(one); onDeleted(one); }));
  return node;
}

function rename(node, one, shownChat, again) {
  const field = make("input", { value: one.title, maxLength: 200 });
  field.setAttribute("aria-label", t("New name"));
  let isDone = false;
  const finish = (isKept) => {
    if (isDone) return;
    isDone = true;
    const title = field.value.trim();
    if (isKept && title) {
      Object.assign(shownChat, { title, named: true });
      keepChat(Object.assign(one, { title, named: true }));
    }
    again();
  };
  field.onkeydown = (event) => { if (event.key === "Enter") finish(true); if (event.key === "Escape") { event.stopPropagation(); finish(false); } };
  field.onblur = () => finish(true);
  node.replaceChildren(field);
  field.select();
}

export function exportChats() {
  const file = new Blob([JSON.stringify({ format: "edge chats", chats: allChats() }, null, 1)], { type: "application/json" });
  const anchor = make("a", { href: URL.createObjectURL(file), download: "edge-chats.json" });
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(anchor.href), 10000);
}

/** Store the chats of an exported file, and return the first; null if there are none. */
export async function importChats(file) {
  let chats = [];
  try { chats = JSON.parse(await file.text()).chats.map(chatFrom).filter(Boolean); } catch { /* reported below */ }
  chats.forEach(keepChat);
  notice(chats.length ? t("Chats imported: {count}", { count: chats.length }) : t("That file contains no chats"));
  return chats[0] || null;
}
