/** Requests to the server. */

import { settings } from "./chats.js";
import { t } from "./words.js";

const NUMBERS = ["temperature", "top_p", "max_tokens", "seed"];

const headers = () => ({ "content-type": "application/json", ...(settings.key ? { authorization: "Bearer " + settings.key } : {}) });

/** An error response; `status` is its HTTP status. */
export class ServerError extends Error {
  constructor(message, status) {
    super(message || t("The server answered {status}", { status }));
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const response = await fetch(path, { ...options, headers: headers() });
  if (response.ok) return response;
  let message = "";
  try { message = (await response.json()).error.message; } catch { /* not JSON: the status is reported */ }
  throw new ServerError(message, response.status);
}

/** Return the model's entry in the list of models, and whether it sees pictures. */
export async function loadModel() {
  const model = (await (await ask("v1/models")).json()).data[0];
  let modalities = null;
  try { modalities = (await (await ask("props")).json()).modalities; } catch { /* an older server: no pictures */ }
  return { ...model, meta: model.meta || {}, seesPictures: Boolean(modalities && modalities.vision) };
}

/** Request an answer to `messages` of `chat`, and yield the events of the stream. */
export async function* answerEvents(chat, messages, model, signal) {
  const response = await ask("v1/chat/completions", { method: "POST", body: requestBody(chat, messages, model), signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) if (part.startsWith("data: ") && part !== "data: [DONE]") yield JSON.parse(part.slice(6));
  }
}

function requestBody(chat, messages, model) {
  const body = { model: model.id, stream: true, stream_options: { include_usage: true }, messages: messages.map(messageBody) };
  if (chat.system.trim()) body.messages.unshift({ role: "system", content: chat.system });
  if (chat.tools.trim()) body.tools = JSON.parse(chat.tools);
  for (const name of NUMBERS) if (settings[name] !== "") body[name] = Number(settings[name]);
  if (settings.think === "off") body.reasoning_effort = "none";
  return JSON.stringify(body);
}

function messageBody(message) {
  if (message.role === "tool") return { role: "tool", tool_call_id: message.callId, content: message.content };
  if (message.role === "assistant") return assistantBody(message);
  const texts = message.files.filter((file) => file.kind === "text").map((file) => `${file.name}:\n\n${file.data}`);
  const pictures = message.files.filter((file) => file.kind === "picture").map((file) => ({ type: "image_url", image_url: { url: file.data } }));
  const text = [...texts, message.content].filter(Boolean).join("\n\n");
  return { role: "user", content: pictures.length ? [...pictures, ...(text ? [{ type: "text", text }] : [])] : text };
}

function assistantBody(message) {
  const calls = message.calls.map((call) => ({ id: call.id, type: "function", function: { name: call.name, arguments: call.arguments } }));
  return { role: "assistant", content: message.content || (calls.length ? null : ""), ...(calls.length ? { tool_calls: calls } : {}) };
}
