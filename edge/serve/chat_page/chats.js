/** Chats, as trees of messages, stored in this browser.
 *
 * A message has a parent; several messages with the same parent are versions of one another. `leaf` is the last message
 * that is shown: answering again, or editing a question, adds a version and moves the leaf, and deletes nothing.
 *
 * @typedef {{id: string, name: string, arguments: string}} Call  A call of a tool by the model
 * @typedef {{name: string, kind: "text" | "picture", data: string}} File  A text, or a picture as a data: address
 * @typedef {{id: number, parent: number | null, role: "user" | "assistant" | "tool", content: string, thought: string,
 *   calls: Call[], callId: string, files: File[], numbers: string, note: string, used: number}} Message
 * @typedef {{id: string, title: string, named: boolean, updated: number, system: string, tools: string,
 *   leaf: number | null, messages: Message[]}} Chat
 */

import { notice } from "./dom.js";
import { t } from "./words.js";

const PREFIX = "edge.chat.", SETTINGS = "edge.settings";
const MAX_TITLE = 200;

export const settings = Object.assign(
  { system: "", temperature: "", top_p: "", max_tokens: "", seed: "", think: "", key: "", theme: "", language: "" }, read(SETTINGS));
export const saveSettings = () => write(SETTINGS, settings);

function read(key) {
  try { return JSON.parse(localStorage.getItem(key)); } catch { return null; }
}
function write(key, value) {
  try { localStorage.setItem(key, JSON.stringify(value)); } catch { notice(t("The storage of this browser is full: export old chats and delete them")); }
}
const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
const text = (value) => (typeof value === "string" ? value : "");
const items = (value) => (Array.isArray(value) ? value.filter((one) => one && typeof one === "object") : []);

/** Return a new chat, with the system prompt of the settings. @returns {Chat} */
export const newChat = () => ({ id: newId(), title: "", named: false, updated: 0, system: settings.system, tools: "", leaf: null, messages: [] });

/** Return a message without an id and a parent, which `add` sets. @returns {Message} */
export const newMessage = (role, values = {}) => ({ id: 0, parent: null, role, content: "", thought: "", calls: [], callId: "", files: [], numbers: "", note: "", used: 0, ...values });

/** Return a chat from the storage or an imported file in the shape that the page relies on; null if it is not one. */
export function chatFrom(value) {
  if (!value || !Array.isArray(value.messages)) return null;
  const chat = newChat();
  for (const one of items(value.messages)) {
    if (!["user", "assistant", "tool"].includes(one.role) || typeof one.content !== "string") continue;
    const parent = chat.messages.find((earlier) => earlier.id === one.parent);
    const isFirst = one.parent === null || !chat.messages.length;
    const message = newMessage(one.role, {
      content: one.content, thought: text(one.thought), callId: text(one.callId), numbers: text(one.numbers), note: text(one.note), used: Number(one.used) || 0,
      calls: items(one.calls).map((call) => ({ id: text(call.id), name: text(call.name), arguments: text(call.arguments) })),
      files: items(one.files).filter(isFile).map((file) => ({ name: text(file.name), kind: file.kind, data: file.data })),
    });
    message.id = Number.isInteger(one.id) && !byId(chat, one.id) ? one.id : nextId(chat);
    message.parent = isFirst ? null : (parent || chat.messages.at(-1)).id;  // chats of older versions are lists
    chat.messages.push(message);
  }
  chat.leaf = (byId(chat, value.leaf) || chat.messages.at(-1) || { id: null }).id;
  if (/^[0-9a-f]{16}$/.test(value.id)) chat.id = value.id;
  chat.title = String(value.title || t("Chat")).slice(0, MAX_TITLE);
  return Object.assign(chat, { named: value.named === true, updated: Number(value.updated) || 0, system: text(value.system), tools: text(value.tools) });
}
const isFile = (file) => typeof file.data === "string" && (file.kind === "text" || (file.kind === "picture" && file.data.startsWith("data:image/")));

export function allChats() {
  return Object.keys(localStorage).filter((key) => key.startsWith(PREFIX)).map((key) => chatFrom(read(key))).filter(Boolean).sort((a, b) => b.updated - a.updated);
}
export const isStored = (chat) => localStorage.getItem(PREFIX + chat.id) !== null;
export const deleteChat = (chat) => localStorage.removeItem(PREFIX + chat.id);
export const keepChat = (chat) => write(PREFIX + chat.id, chat);

/** Store a chat that has messages, under the beginning of its first message unless it was named. */
export function store(chat) {
  if (!chat.messages.length) return;
  chat.updated = Date.now();
  const [first] = shown(chat);
  if (!chat.named && first) chat.title = (first.content.trim() || first.files.map((file) => file.name).join(", ")).split("\n")[0].slice(0, 80) || t("Chat");
  keepChat(chat);
}

/** Whether a chat's title or one of its messages contains `words`, in lower case. */
export function contains(chat, words) {
  return [chat.title, ...chat.messages.map((message) => message.content)].some((one) => one.toLowerCase().includes(words));
}

/* ---- the tree ---- */

const byId = (chat, id) => chat.messages.find((message) => message.id === id);
const nextId = (chat) => 1 + Math.max(0, ...chat.messages.map((message) => message.id));

/** Return the shown messages, from the first to the leaf. @returns {Message[]} */
export function shown(chat) {
  const path = [];
  for (let message = byId(chat, chat.leaf); message; message = byId(chat, message.parent)) path.unshift(message);
  return path;
}

/** Add a message after the leaf, which it becomes. */
export function add(chat, message) {
  message.id = nextId(chat);
  message.parent = chat.leaf;
  chat.messages.push(message);
  chat.leaf = message.id;
}

/** Remove a message that nothing follows; its parent becomes the leaf if it was shown last. */
export function removeLast(chat, message) {
  if (chat.messages.some((one) => one.parent === message.id)) return;
  chat.messages.splice(chat.messages.indexOf(message), 1);
  if (chat.leaf === message.id) chat.leaf = message.parent;
}

/** Return all versions of a message, the oldest first. @returns {Message[]} */
export const versions = (chat, message) => chat.messages.filter((one) => one.parent === message.parent);

/** Show a message, and what was last said after it. */
export function showVersion(chat, message) {
  let last = message;
  for (let next = last; next; next = chat.messages.filter((one) => one.parent === last.id).at(-1)) last = next;
  chat.leaf = last.id;
}
