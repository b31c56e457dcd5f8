/** One message as an element, with the buttons below it. */

import { shown, versions } from "./chats.js";
import { copy, iconButton, make, notice } from "./dom.js";
import { codeBlock, markdown } from "./markdown.js";
import { t } from "./words.js";

const NAMES = { user: "You", assistant: "The model", tool: "Tool" };
// Thoughts that the server did not separate from the answer.
const THOUGHT = /^\s*<think>([\s\S]*?)(<\/think>|$)/;

/** Return the element of a message. `actions` has the functions that its buttons call; `isLive` while it is written. */
export function messageView(chat, message, actions, isLive = false) {
  const node = make("article", { className: message.role });
  node.setAttribute("aria-label", t(NAMES[message.role]));
  node.setAttribute("aria-busy", String(isLive));
  node.append(...contents(chat, message, isLive));
  if (message.error) node.append(make("p", { className: "bad" }, message.error));
  if (message.note) node.append(make("p", { className: "note" }, t(message.note)));
  if (isLive) return node;
  if (isUnanswered(chat, message)) node.append(resultForm(message, actions));
  node.append(buttons(chat, message, actions, node));
  return node;
}

/** Replace what a message says, while it is written; the thoughts stay open or closed as the reader left them. */
export function updateMessage(node, chat, message) {
  const thoughts = node.querySelector("details.think");
  const isOpen = thoughts && thoughts.open;
  node.replaceChildren(...contents(chat, message, true));
  const renewed = node.querySelector("details.think");
  if (renewed && thoughts) renewed.open = isOpen;
}

function contents(chat, message, isLive) {
  const text = make("div", { className: "text" });
  if (message.role === "tool") return [toolResult(chat, message)];
  if (message.role === "user") {
    text.textContent = message.content;
    return [...(message.files.length ? [attachedFiles(message.files)] : []), ...(message.content ? [text] : [])];
  }
  const { thought, answer, isOver } = separated(message);
  if (isLive && !answer && !message.calls.length) {
    const dots = make("span", { className: "waits" }, make("b"), make("b"), make("b"));
    text.append(make("span", {}, dots, make("span", { className: "visually-hidden" }, t("The model is reading"))));
  } else text.append(...markdown(answer));
  const isThinking = isLive && !isOver && !message.calls.length;
  return [...(thought ? [thoughts(thought, isThinking)] : []), text, ...message.calls.map(callView)];
}

/** Return thought and answer, and whether the thought has ended. */
function separated(message) {
  const found = message.thought ? null : THOUGHT.exec(message.content);
  if (!found) return { thought: message.thought.trim(), answer: message.content, isOver: Boolean(message.content) };
  return { thought: found[1].trim(), answer: message.content.slice(found[0].length), isOver: Boolean(found[2]) };
}

/** Return the text of the answer, without thoughts. */
export const answerText = (message) => separated(message).answer.trim();

function thoughts(text, isThinking) {
  const summary = make("summary", {}, t(isThinking ? "Thinking …" : "Thoughts"));
  return make("details", { className: "think" }, summary, ...markdown(text));
}

function callView(call) {
  let text = call.arguments;
  try { text = JSON.stringify(JSON.parse(text), null, 2); } catch { /* not complete yet, or not JSON: as it is */ }
  return make("details", { className: "call", open: true }, make("summary", {}, t("Calls {name}", { name: call.name })), codeBlock(text, "json"));
}

function toolResult(chat, message) {
  const call = chat.messages.flatMap((one) => one.calls).find((one) => one.id === message.callId);
  const summary = make("summary", {}, t("Result of {name}", { name: call ? call.name : "?" }));
  return make("details", { className: "call", open: true }, summary, codeBlock(message.content, ""));
}

function attachedFiles(files) {
  return make("ul", { className: "files" }, ...files.map((file) => make("li", {}, fileView(file))));
}

/** Return a picture, or the name of a text file. */
export function fileView(file) {
  return file.kind === "picture" ? make("img", { src: file.data, alt: file.name, title: file.name }) : make("span", { className: "file" }, file.name);
}

function isUnanswered(chat, message) {
  return message.calls.length > 0 && shown(chat).at(-1) === message;
}

/** Return a form for the results of the model's calls: what the tools answered, as the reader found out. */
function resultForm(message, actions) {
  const fields = message.calls.map((call) => {
    const area = make("textarea", { rows: 2, required: true, placeholder: t("Result of {name}", { name: call.name }) });
    area.setAttribute("aria-label", t("Result of {name}", { name: call.name }));
    return area;
  });
  const send = make("button", { className: "button main" }, t("Send the result"));
  const onsubmit = (event) => { event.preventDefault(); actions.sendResults(message, fields.map((area) => area.value)); };
  return make("form", { className: "results edit", onsubmit }, ...fields, make("div", {}, send));
}

function buttons(chat, message, actions, node) {
  const under = make("div", { className: "under" });
  const text = message.role === "assistant" ? answerText(message) : message.content;
  if (text) under.append(iconButton("copy", t("Copy"), () => copy(text).then(() => notice(t("Copied")))));
  if (message.role === "user") under.append(iconButton("edit", t("Edit and ask again"), () => edit(node, chat, message, actions)));
  if (message.role === "assistant") under.append(iconButton("again", t("Answer again"), () => actions.again(message)));
  if (message.role === "assistant" && message.content && !message.calls.length && shown(chat).at(-1) === message) {
    under.append(iconButton("continue", t("Continue"), () => actions.goOn(message)));
  }
  const all = versions(chat, message);
  if (all.length > 1 && all.includes(message)) under.append(...versionButtons(all, message, actions));
  if (message.numbers) under.append(make("span", { className: "numbers" }, message.numbers));
  return under;
}

function versionButtons(all, message, actions) {
  const place = all.indexOf(message);
  const turn = (name, label, other) => {
    const button = iconButton(name, t(label), () => actions.showVersion(other, t(label)));
    button.classList.add("turn");
    button.disabled = !other;
    return button;
  };
  const text = make("span", { className: "version" }, `${place + 1} / ${all.length}`);
  text.setAttribute("role", "img");
  text.setAttribute("aria-label", t("Version {number} of {count}", { number: place + 1, count: all.length }));
  return [turn("left", "Earlier version", all[place - 1]), text, turn("right", "Later version", all[place + 1])];
}

function edit(node, chat, message, actions) {
  if (actions.isBusy()) return;
  const area = make("textarea", { value: message.content });
  area.setAttribute("aria-label", t("Edit the message"));
  const save = () => { if (area.value.trim() || message.files.length) actions.askAgain(message, area.value); };
  const cancel = () => {
    const renewed = messageView(chat, message, actions);
    node.replaceWith(renewed);
    renewed.querySelector(".under button").focus();
  };
  area.onkeydown = (event) => {
    if (event.key === "Escape") { event.stopPropagation(); cancel(); }
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); save(); }
  };
  const cancelButton = make("button", { type: "button", className: "button", onclick: cancel }, t("Cancel"));
  const saveButton = make("button", { type: "button", className: "button main", onclick: save }, t("Ask again"));
  node.replaceChildren(make("div", { className: "edit" }, area, make("div", {}, cancelButton, saveButton)));
  area.focus();
}
