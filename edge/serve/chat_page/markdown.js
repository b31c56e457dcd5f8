/** Markdown → elements. The text of a model is never parsed as HTML. */

import { coloredCode } from "./code_colors.js";
import { copy, make } from "./dom.js";
import { formula } from "./formulas.js";
import { t } from "./words.js";

// One alternative each: formula, code, link (images become links, so that nothing is loaded), bold, strikethrough,
// italic, bare address, escaped sign. Lengths are limited, so that a text full of openings takes no quadratic time.
// Two stars between letters or digits do not begin bold text (2**10 and 3**4).
// `\(` and `\[` without an end keep their backslashes: the rest may be on its way.
const INLINE = new RegExp([
  String.raw`\\\((?<round>[^\n]{1,1000}?)\\\)|\\\[(?<square>[^\n]{1,1000}?)\\\]|\$\$(?<dollars>[^$\n]{1,1000})\$\$|(?<![\\$\w])\$(?=\S)(?<dollar>[^$\n]{0,500}?[^\s$\\])\$(?![\w$])`,
  String.raw`(?<ticks>${"`"}+)(?<code>[\s\S]*?[^${"`"}])\k<ticks>(?!${"`"})`,
  String.raw`!?\[(?<label>[^\]\n]{0,1000})\]\(\s{0,9}<?(?<address>[^\s)>]{1,2000})>?(?:\s+(?<title>[^)\n]{0,500}))?\)`,
  String.raw`(?<stars>(?<![0-9A-Za-z](?=\*\*[0-9A-Za-z]))\*\*|__)(?=\S)(?<bold>[\s\S]*?\S)\k<stars>`,
  String.raw`~~(?=\S)(?<struck>[\s\S]*?\S)~~`,
  String.raw`(?<![\w*])(?<star>[*_])(?=[^\s*_])(?<italic>[\s\S]*?[^\s*_])\k<star>(?![\w*])`,
  String.raw`(?<bare>https?:\/\/[^\s<>"'${"`"})\]]+[^\s<>"'${"`"})\].,;:!?])`,
  String.raw`\\(?<sign>[\\${"`"}*_#+\-.!|~>])`,
].join("|"), "g");
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const FENCE = /^\s*(`{3,}|~{3,})\s*([^`]*)$/;
const RULE = /^\s*([-*_])(\s*\1){2,}\s*$/;
const DASHES = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;
const FORMULA = /^\s*(\\\[|\$\$)/;
const MAX_INLINE_DEPTH = 6, MAX_BLOCK_DEPTH = 8;

/** Return the elements of a Markdown text. */
export function markdown(text) {
  return blocks(text.replaceAll("\r\n", "\n").replaceAll("\t", "    ").split("\n"));
}

/** Return a block of code with its language and a button that copies it. */
export function codeBlock(code, language) {
  const button = make("button", { type: "button" }, t("Copy"));
  button.onclick = () => copy(code).then(() => { button.textContent = t("Copied"); setTimeout(() => { button.textContent = t("Copy"); }, 1500); });
  const head = make("div", {}, make("span", {}, language), button);
  return make("div", { className: "block" }, head, make("pre", { tabIndex: 0 }, make("code", {}, ...coloredCode(code, language))));
}

/** Return a link; undefined if the address is not one that a browser may open. */
function link(address, text, title = "") {
  let url;
  try { url = new URL(address); } catch { return undefined; }
  if (!["http:", "https:", "mailto:"].includes(url.protocol)) return undefined;
  return make("a", { href: url.href, title: title.replace(/^["']|["']$/g, ""), target: "_blank", rel: "noopener noreferrer nofollow" }, text);
}

function inline(text, depth = 0) {
  const nodes = [];
  let last = 0;
  if (depth < MAX_INLINE_DEPTH) for (const match of text.matchAll(INLINE)) {
    if (match.index > last) nodes.push(text.slice(last, match.index));
    last = match.index + match[0].length;
    nodes.push(...inlineNodes(match[0], match.groups, depth));
  }
  nodes.push(text.slice(last));
  return nodes.filter((node) => node !== "");
}

function inlineNodes(whole, found, depth) {
  const tex = found.round ?? found.square ?? found.dollars ?? found.dollar;
  if (tex !== undefined) return [formula(tex, whole, false)];
  if (found.code !== undefined) return [make("code", {}, found.code.replace(/^ (.*) $/s, "$1"))];
  if (found.address !== undefined) return [link(found.address, found.label || found.address, found.title) ?? whole];
  for (const [name, tag] of [["bold", "strong"], ["struck", "del"], ["italic", "em"]]) {
    if (found[name] !== undefined) return [make(tag, {}, ...inline(found[name], depth + 1))];
  }
  return [found.bare !== undefined ? link(found.bare, found.bare) ?? whole : found.sign];
}

/** Return the inline elements of several lines; a line break in a paragraph is kept, as usual in chats. */
function lines(text) {
  const nodes = [];
  text.split("\n").forEach((line, number) => { if (number) nodes.push(make("br")); nodes.push(...inline(line.trim())); });
  return nodes;
}

const isTable = (row, next) => row.includes("|") && next !== undefined && DASHES.test(next) && next.includes("|");

function blocks(rows, depth = 0) {
  const nodes = [];
  for (let i = 0; i < rows.length;) {
    if (!rows[i].trim()) { i++; continue; }
    const [node, next] = block(rows, i, depth);
    nodes.push(node);
    i = next;
  }
  return nodes;
}

/** Return the block that begins in row `i`, and the row after it. */
function block(rows, i, depth) {
  const row = rows[i];
  if (FENCE.test(row)) return fenced(rows, i);
  const heading = /^\s*(#{1,6})\s+(.*?)\s*#*\s*$/.exec(row);
  if (heading) return [make("h" + Math.min(heading[1].length, 4), {}, ...inline(heading[2])), i + 1];
  if (RULE.test(row)) return [make("hr"), i + 1];
  if (/^\s*>/.test(row)) return quote(rows, i, depth);
  if (ITEM.test(row)) return list(rows, i, depth);
  if (isTable(row, rows[i + 1])) return table(rows, i);
  return (FORMULA.test(row) && displayed(rows, i)) || paragraph(rows, i);
}

function fenced(rows, i) {
  const [, fence, info] = FENCE.exec(rows[i]);
  const isEnd = (row) => row.trim().startsWith(fence) && !row.trim().replaceAll(fence[0], "");
  const body = [];
  for (i++; i < rows.length && !isEnd(rows[i]); i++) body.push(rows[i]);
  return [codeBlock(body.join("\n"), info.trim().split(/\s/)[0].slice(0, 30)), i + 1];
}

function quote(rows, i, depth) {
  const body = [];
  for (; i < rows.length && /^\s*>/.test(rows[i]); i++) body.push(rows[i].replace(/^\s*> ?/, ""));
  return [make("blockquote", {}, ...(depth < MAX_BLOCK_DEPTH ? blocks(body, depth + 1) : lines(body.join("\n")))), i];
}

/** Return a formula of its own, in one or several rows; undefined if it has no end, or text follows in its last row. */
function displayed(rows, i) {
  const opening = FORMULA.exec(rows[i])[1], closing = opening === "$$" ? "$$" : "\\]";
  let body = rows[i].trim().slice(2);
  for (let end = i; end < rows.length; body += "\n" + rows[++end]) {
    const place = body.indexOf(closing);
    if (place < 0) continue;
    if (body.slice(place + 2).trim()) return undefined;
    return [formula(body.slice(0, place), opening + body.slice(0, place) + closing, true), end + 1];
  }
  return undefined;
}

function paragraph(rows, i) {
  const starts = (row, next) => !row.trim() || FENCE.test(row) || /^\s*(#{1,6}\s|>)/.test(row) || ITEM.test(row) || RULE.test(row) || FORMULA.test(row) || isTable(row, next);
  const body = [rows[i]];
  for (i++; i < rows.length && !starts(rows[i], rows[i + 1]); i++) body.push(rows[i]);
  return [make("p", {}, ...lines(body.join("\n"))), i];
}

function list(rows, i, depth) {
  const first = ITEM.exec(rows[i]);
  const indent = first[1].length, isOrdered = /\d/.test(first[2]);
  const node = make(isOrdered ? "ol" : "ul");
  if (isOrdered && parseInt(first[2]) !== 1) node.start = parseInt(first[2]);
  while (i < rows.length) {
    const match = ITEM.exec(rows[i]);
    if (!match || match[1].length > indent + 1 || match[1].length < indent || /\d/.test(match[2]) !== isOrdered || RULE.test(rows[i])) break;
    const [body, next] = listItem(rows, i, match);
    i = next;
    const parts = depth < MAX_BLOCK_DEPTH ? blocks(body, depth + 1) : lines(body.join("\n"));
    if (parts[0] instanceof HTMLParagraphElement) parts.splice(0, 1, ...parts[0].childNodes);
    node.append(make("li", {}, ...parts));
  }
  return [node, i];
}

/** Return the rows of the item that begins in row `i`, without their indentation, and the row of the next one. */
function listItem(rows, i, match) {
  const body = [match[3]], inner = match[1].length + 2;
  const depthOf = (row) => /^\s*/.exec(row)[0].length;
  for (i++; i < rows.length; i++) {
    if (!rows[i].trim()) {  // an empty line belongs to the item if the next line does
      if (rows[i + 1] === undefined || depthOf(rows[i + 1]) < inner) break;
      body.push("");
      continue;
    }
    const isDeeper = depthOf(rows[i]) >= inner;
    if (!isDeeper && (ITEM.test(rows[i]) || FENCE.test(rows[i]) || /^\s*#/.test(rows[i]))) break;
    body.push(isDeeper ? rows[i].slice(inner) : rows[i].trim());
  }
  while (i < rows.length && !rows[i].trim() && rows[i + 1] !== undefined && ITEM.test(rows[i + 1])) i++;
  return [body, i];
}

const cells = (row) => row.trim().replace(/^\||\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replaceAll("\\|", "|"));

function table(rows, i) {
  const sides = cells(rows[i + 1]).map((dash) => (/^:.*:$/.test(dash) ? "to-center" : /:$/.test(dash) ? "to-right" : ""));
  const line = (row, tag) => make("tr", {}, ...cells(row).slice(0, 50).map((cell, number) => make(tag, { className: sides[number] || "" }, ...inline(cell))));
  const head = make("thead", {}, line(rows[i], "th")), body = make("tbody");
  for (i += 2; i < rows.length && rows[i].includes("|") && rows[i].trim(); i++) body.append(line(rows[i], "td"));
  return [make("div", { className: "table", tabIndex: 0 }, make("table", {}, head, body)), i];
}
