/** An answer of the model, while it streams into a message. */

import { answerEvents, loadModel, ServerError } from "./api.js";
import { add, isStored, newMessage, removeLast, shown, store } from "./chats.js";
import { t } from "./words.js";

/** Ask for an answer to the shown messages of `chat`, or for more of `begun`, the last of them.
 *
 * `page` shows it: `begin(message)`, `update()`, `end(message)`. Its `model` is loaded if that failed before.
 */
export async function answer(page, chat, abort, begun = null) {
  const message = begun || newMessage("assistant");
  const messages = shown(chat);
  if (!begun) add(chat, message);
  message.note = message.error = "";
  const state = { message, before: message.content, received: "", began: performance.now(), first: 0, ended: "" };
  page.begin(message);
  try {
    page.model ||= await loadModel();
    for await (const event of answerEvents(chat, messages, page.model, abort.signal)) take(state, event, page);
    if (!state.ended) throw new Error(t("The connection ended before the answer did"));
    if (state.ended === "length") message.note = lengthNote(message, page.model);
  } catch (error) {
    if (abort.signal.aborted) message.note = "Stopped.";
    else message.error = error instanceof TypeError ? t("The server cannot be reached. Is it running?") : error.message;
    if (error instanceof ServerError && error.status === 401) page.askKey();
  }
  const { error } = message;
  delete message.error;  // an error is shown, and not stored
  if (!message.content && !message.thought && !message.calls.length) removeLast(chat, message);
  if (isStored(chat)) store(chat);  // unless it was deleted meanwhile
  page.end(Object.assign(message, error ? { error } : {}));
  delete message.error;
}

function take(state, event, page) {
  const { message } = state;
  if (event.error) throw new Error(event.error.message);
  const choice = event.choices[0];
  if (choice) {
    const { content, reasoning_content: thought, tool_calls: calls } = choice.delta;
    if (content || thought || calls) state.first ||= performance.now();
    takeText(state, content || "");
    message.thought += thought || "";
    for (const part of calls || []) takeCall(message, part);
    if (content || thought || calls) page.update();
    state.ended = choice.finish_reason || state.ended;
  }
  if (event.usage) message.numbers = numbers(state, event);
}

/** Add a part of the text. llama-server sends the beginning of a continued answer again; others do not. */
function takeText(state, text) {
  const { message, before } = state;
  state.received += text;
  if (state.received.startsWith(before)) message.content = state.received;
  else if (!before.startsWith(state.received)) message.content = before + state.received;
}

/** Add a part of a call; the first one has its id and name. */
function takeCall(message, part) {
  const call = (message.calls[part.index] ||= { id: "", name: "", arguments: "" });
  const { name = "", arguments: text = "" } = part.function || {};
  call.id += part.id || "";
  call.name += name || "";
  call.arguments += text || "";
}

function numbers(state, event) {
  const { message, first, began } = state;
  message.used = event.usage.total_tokens;
  const speed = event.timings && event.timings.predicted_per_second;
  return [
    speed ? t("{speed} tok/s", { speed: speed.toFixed(1) }) : "",
    t("{count} tokens", { count: event.usage.completion_tokens }),
    first ? t("first after {seconds} s", { seconds: ((first - began) / 1000).toFixed(1) }) : "",
  ].filter(Boolean).join(" · ");
}

function lengthNote(message, model) {
  const isFull = model.meta.context && message.used >= model.meta.context;
  return isFull ? "The context is full: start a new chat, or edit an earlier message." : "Cut off at the maximum number of tokens (see the settings).";
}
