/** The chat page: the shown chat, the field to write in, and the dialogs. */

import { loadModel, ServerError } from "./api.js";
import { answer } from "./answering.js";
import { attachment } from "./attachments.js";
import { add, allChats, keepChat, newChat, newMessage, removeLast, saveSettings, settings, shown, showVersion, store } from "./chats.js";
import { exportChats, importChats, listChats } from "./chat_list.js";
import { $, iconButton, make, notice, translateDocument } from "./dom.js";
import { fileView, messageView, updateMessage } from "./message_view.js";
import { chooseLanguage, t } from "./words.js";

let chat = newChat();
let running = null;  // the AbortController of the running answer
let files = [];      // to be sent with the next message
const isTouch = () => matchMedia("(pointer: coarse)").matches;

/* ---- the conversation ---- */

const page = {
  model: null, node: null, frame: 0, chat: null,
  begin(message) {
    this.chat = chat;
    this.node = messageView(chat, message, actions, true);
    show();
    follow(true);
  },
  update() {
    this.frame ||= requestAnimationFrame(() => {
      this.frame = 0;
      updateMessage(this.node, this.chat, shown(this.chat).at(-1));
      follow();
    });
  },
  end(message) {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    running = null;
    const isEmpty = !this.chat.messages.includes(message);
    if (this.chat === chat) {
      show();
      if (isEmpty) $("log").append(messageView(chat, message, actions));
      else if (message.error) $("log").lastChild.replaceWith(messageView(chat, message, actions));
    } else showList();
    $("status").textContent = message.error || t("The answer is complete.");
    showModel();
    follow();
  },
  askKey,
};

function ask(begun = null) {
  running = new AbortController();
  if (!isTouch()) $("input").focus();
  answer(page, chat, running, begun);
}

const stop = () => running && running.abort();

const actions = {
  isBusy: () => running !== null,
  /** Add a version of an answer. */
  again(message) {
    if (running) return;
    // An answer that failed before its first word is not in the chat.
    if (chat.messages.includes(message)) chat.leaf = message.parent;
    ask();
  },
  /** Let the model write on where the answer ended. */
  goOn(message) {
    if (!running) ask(message);
  },
  /** Ask another version of a question. */
  askAgain(message, content) {
    if (running) return;
    chat.leaf = message.parent;
    say(content, message.files);
  },
  sendResults(message, results) {
    if (running) return;
    results.forEach((content, number) => add(chat, newMessage("tool", { content, callId: message.calls[number].id })));
    store(chat);
    ask();
  },
  showVersion(message, label) {
    if (running) return;
    showVersion(chat, message);
    store(chat);
    show();
    // The button that was pressed is a new one now: the keyboard stays on it, or on its neighbor at the first and last.
    const turns = [...$("log").children[shown(chat).indexOf(message)].querySelectorAll(".turn:not(:disabled)")];
    (turns.find((button) => button.getAttribute("aria-label") === label) || turns[0]).focus();
  },
};

function say(content, attached) {
  const last = shown(chat).at(-1);
  // A question without an answer (after an error or a stop) is replaced, not repeated.
  if (last && last.role === "user") { chat.leaf = last.parent; removeLast(chat, last); }
  add(chat, newMessage("user", { content, files: attached }));
  store(chat);
  ask();
}

function show() {
  const messages = shown(chat);
  const isWritten = running && page.chat === chat;
  $("log").replaceChildren(...messages.map((message, number) => (isWritten && number === messages.length - 1 ? page.node : messageView(chat, message, actions))));
  if (!messages.length) {
    const text = t("The model runs on this server. Chats are stored in this browser, and nowhere else.");
    $("log").append(make("div", { className: "hello" }, make("h1", {}, t("What is on your mind?")), make("p", {}, text)));
  }
  $("title").textContent = chat.title;
  showList();
  showMeter();
  showButtons();
}

function showList() { listChats(chat, open, removed); }

function showMeter() {
  const context = page.model && page.model.meta.context;
  const used = shown(chat).reduce((last, message) => message.used || last, 0);
  $("meter").hidden = !context || !used;
  if (!context || !used) return;
  const share = Math.min(used / context, 1);
  $("meter").querySelector(".bar span").style.width = 100 * share + "%";
  $("meter").classList.toggle("full", share > 0.9);
  $("meter-text").textContent = used.toLocaleString("en") + " / " + context.toLocaleString("en");
  $("meter").title = t("{share} % of the context is used", { share: Math.round(100 * share) });
}

function showButtons() {
  $("stop").hidden = !running;
  $("send").hidden = Boolean(running);
  $("send").disabled = !$("input").value.trim() && !files.length;
}

function showModel() {
  const { model } = page;
  if (!model) return;
  $("model").textContent = model.id;
  $("model").title = [model.meta.architecture, model.meta.quantization, model.meta.context && "context " + model.meta.context].filter(Boolean).join(", ");
  document.title = model.id + " · edge chat";
  showMeter();
}

const isAtEnd = () => $("scroll").scrollHeight - $("scroll").scrollTop - $("scroll").clientHeight < 80;
let follows = true;
function follow(isForced = false) {
  if (isForced) follows = true;
  if (follows) $("scroll").scrollTop = $("scroll").scrollHeight;
  $("down").hidden = isAtEnd();
}

function open(other) {
  stop();
  chat = other;
  show();
  follow(true);
  side(false);
  if (!isTouch()) $("input").focus();
}

function removed(one) {
  const wasShown = one.id === chat.id;
  if (wasShown) { stop(); chat = newChat(); show(); } else showList();
  notice(t("Chat deleted"), t("Undo"), () => { keepChat(one); if (wasShown) chat = one; show(); });
}

/* ---- writing, and files ---- */

function grow() {
  $("input").style.height = "auto";
  $("input").style.height = $("input").scrollHeight + "px";
  showButtons();
}

function showFiles() {
  $("attached").hidden = !files.length;
  $("attached").replaceChildren(...files.map((file) => {
    const remove = iconButton("close", t("Remove {name}", { name: file.name }), () => { files = files.filter((one) => one !== file); showFiles(); $("input").focus(); });
    return make("li", {}, fileView(file), remove);
  }));
  showButtons();
}

async function attach(list) {
  for (const file of list) {
    try { files.push(await attachment(file, Boolean(page.model && page.model.seesPictures))); } catch (error) { notice(error.message); }
  }
  showFiles();
}

$("form").onsubmit = (event) => {
  event.preventDefault();
  const text = $("input").value;
  if (running || (!text.trim() && !files.length)) return;
  const attached = files;
  files = [];
  $("input").value = "";
  grow();
  showFiles();
  say(text, attached);
};
$("input").oninput = grow;
$("input").onkeydown = (event) => {
  // On a phone, Enter starts a new line: a button sends the message.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || isTouch()) return;
  event.preventDefault();
  $("form").requestSubmit();
};
$("input").onpaste = (event) => {
  if (!event.clipboardData.files.length) return;
  event.preventDefault();
  attach(event.clipboardData.files);
};
$("attach").onclick = () => $("files").click();
$("files").onchange = async () => { await attach($("files").files); $("files").value = ""; };
const hasFiles = (event) => event.dataTransfer && event.dataTransfer.types.includes("Files");
document.ondragover = (event) => { if (hasFiles(event)) { event.preventDefault(); $("drop").hidden = false; } };
document.ondragleave = (event) => { if (!event.relatedTarget) $("drop").hidden = true; };
document.ondrop = (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  $("drop").hidden = true;
  attach(event.dataTransfer.files);
};

/* ---- the list, dialogs and keys ---- */

function side(isOpen) {
  document.body.classList.toggle("side", isOpen);
  $("veil").hidden = !isOpen;
}

function theme() {
  const isDark = settings.theme ? settings.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
  $("theme").querySelector("use").setAttribute("href", isDark ? "#i-sun" : "#i-moon");
  $("set-theme").value = settings.theme;
}

function connect() {
  loadModel().then((model) => { page.model = model; showModel(); }).catch((error) => {
    $("model").textContent = t("not connected");
    if (error instanceof ServerError && error.status === 401) askKey();
    else notice(error instanceof TypeError ? t("The server cannot be reached") : error.message);
  });
}

function askKey() {
  if ($("ask-key").open) return;
  $("key").value = settings.key;
  $("ask-key").showModal();
}

function useKey() {
  $("ask-key").close();
  settings.key = $("key").value.trim();
  saveSettings();
  connect();
}

function openSettings() {
  for (const name in settings) $("set-" + name).value = settings[name];
  $("chat-system").value = chat.system;
  $("chat-tools").value = chat.tools;
  $("settings").showModal();
}

/** Return why a text is not a list of tools; empty if it is one, or empty. */
function problemOfTools(text) {
  try { return !text.trim() || Array.isArray(JSON.parse(text)) ? "" : t("This is not a list of tools in JSON"); } catch { return t("This is not a list of tools in JSON"); }
}

function changeChat(name, value) {
  chat[name] = value;
  if (chat.messages.length) keepChat(chat);
}

document.onkeydown = (event) => {
  if (event.key !== "Escape") return;
  if (document.body.classList.contains("side")) { side(false); $("side-open").focus(); } else if (!document.querySelector("dialog[open]")) stop();
};
$("stop").onclick = () => { stop(); $("input").focus(); };
$("new").onclick = () => open(newChat());
$("search").oninput = showList;
$("side-open").onclick = () => { side(true); $("side-close").focus(); };
$("side-close").onclick = $("veil").onclick = () => { side(false); $("side-open").focus(); };
$("down").onclick = () => follow(true);
$("scroll").onscroll = () => { follows = isAtEnd(); $("down").hidden = follows; };
$("theme").onclick = () => { settings.theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark"; saveSettings(); theme(); };
$("export").onclick = exportChats;
$("import").onclick = () => $("file").click();
$("file").onchange = async () => {
  const first = $("file").files[0] && await importChats($("file").files[0]);
  $("file").value = "";
  if (first) open(first);
};
$("settings-open").onclick = openSettings;
$("settings-close").onclick = () => $("settings").close();
$("settings").onclose = () => { if (!page.model) connect(); };
for (const name in settings) $("set-" + name).onchange = (event) => {
  if (!event.target.checkValidity()) { event.target.reportValidity(); return; }
  settings[name] = event.target.value.trim();
  saveSettings();
  if (name === "theme") theme();
  if (name === "language") location.reload();
};
$("chat-system").onchange = (event) => changeChat("system", event.target.value);
$("chat-tools").onchange = (event) => {
  const problem = problemOfTools(event.target.value);
  event.target.setCustomValidity(problem);
  if (problem) event.target.reportValidity();
  else changeChat("tools", event.target.value);
};
$("key-done").onclick = useKey;
$("key").onkeydown = (event) => { if (event.key === "Enter") useKey(); };
$("key-cancel").onclick = () => $("ask-key").close();
matchMedia("(prefers-color-scheme: dark)").onchange = theme;
window.onstorage = showList;

/* ---- the start ---- */

const sharedKey = new URLSearchParams(location.hash.slice(1)).get("key");  // from the link that the server prints
if (sharedKey) {
  settings.key = sharedKey;
  saveSettings();
  history.replaceState(null, "", location.pathname);
}
document.documentElement.lang = chooseLanguage(settings.language);
translateDocument();
theme();
chat = allChats()[0] || chat;
show();
follow(true);
connect();
if (!isTouch()) $("input").focus();
