/** Colors for code: comments, texts, numbers and the words of a language. Other languages stay plain. */

import { make } from "./dom.js";

const C = "auto bool break case catch char class const continue default delete do double else enum extern false float for fn func function goto if import in int interface let long match mut namespace new nil null package private protected public return short signed sizeof static struct super switch template this throw trait true try type typedef typename undefined union unsigned use using var virtual void volatile while yield async await of export from extends impl pub self where final abstract override val when object".split(" ");
const PYTHON = "False None True and as assert async await break class continue def del elif else except finally for from global if import in is lambda match nonlocal not or pass raise return self try while with yield".split(" ");
const SHELL = "case do done echo elif else esac exit export fi for function if in local return set then unset until while cd sudo".split(" ");
const SQL = "select from where and or not insert into values update set delete create table drop alter join left right inner outer on group by order having limit as is null distinct union all primary key index view".split(" ");

const SLASHES = "\\/\\/[^\\n]*|\\/\\*[\\s\\S]*?(?:\\*\\/|$)", HASH = "#[^\\n]*", DASHES = "--[^\\n]*|\\/\\*[\\s\\S]*?(?:\\*\\/|$)";
const FAMILIES = [
  { names: "c h cpp c++ cc cs csharp java js javascript jsx ts typescript tsx go rust rs swift kotlin kt scala php dart json jsonc css scss glsl zig", comment: SLASHES, words: C },
  { names: "python py python3", comment: HASH, words: PYTHON },
  { names: "sh bash zsh shell console dockerfile make makefile yaml yml toml ini ruby rb perl r", comment: HASH, words: [...SHELL, "def", "end", "require", "true", "false"] },
  { names: "sql sqlite mysql postgresql lua haskell", comment: DASHES, words: [...SQL, ...SQL.map((word) => word.toUpperCase())] },
  { names: "html xml svg", comment: "<!--[\\s\\S]*?(?:-->|$)", words: [], tags: true },
];
const TEXTS = `"""[\\s\\S]*?(?:"""|$)|'''[\\s\\S]*?(?:'''|$)|"(?:\\\\.|[^"\\\\\\n])*"?|'(?:\\\\.|[^'\\\\\\n])*'?|\`(?:\\\\.|[^\`\\\\])*\`?`;
const NUMBER = "\\b(?:0[xX][\\da-fA-F]+|\\d[\\d_]*(?:\\.\\d+)?(?:[eE][+-]?\\d+)?)\\b";

/** Return the code as texts and colored elements. */
export function coloredCode(code, language) {
  const family = FAMILIES.find((one) => one.names.split(" ").includes(language.toLowerCase()));
  if (!family) return [code];
  const word = family.tags ? "<\\/?[\\w-]+|\\/?>" : `\\b(?:${family.words.join("|")})\\b`;
  const pattern = new RegExp(`(${family.comment})|(${TEXTS})|(${NUMBER})|(${word})`, "g");
  const nodes = [];
  let last = 0;
  for (const match of code.matchAll(pattern)) {
    nodes.push(code.slice(last, match.index));
    const kind = ["comment", "string", "number", "word"][match.slice(1).findIndex((group) => group !== undefined)];
    nodes.push(make("span", { className: "code-" + kind }, match[0]));
    last = match.index + match[0].length;
  }
  nodes.push(code.slice(last));
  return nodes.filter((node) => node !== "");
}
