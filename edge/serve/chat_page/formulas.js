/** TeX formulas as MathML, which browsers draw by themselves. What is not known here is shown as it was written. */

import { make } from "./dom.js";

const SPACE = "http://www.w3.org/1998/Math/MathML";
const MAX_CHARACTERS = 5000, MAX_DEPTH = 40;

const names = (text) => Object.fromEntries(text.trim().split(/\s+/).map((pair) => { const [name, sign] = pair.split("="); return [name, sign]; }));
const LETTERS = names(`alpha=α beta=β gamma=γ delta=δ epsilon=ϵ varepsilon=ε zeta=ζ eta=η theta=θ vartheta=ϑ iota=ι kappa=κ lambda=λ mu=μ nu=ν
  xi=ξ pi=π rho=ρ sigma=σ tau=τ upsilon=υ phi=ϕ varphi=φ chi=χ psi=ψ omega=ω Gamma=Γ Delta=Δ Theta=Θ Lambda=Λ Xi=Ξ Pi=Π Sigma=Σ Phi=Φ Psi=Ψ
  Omega=Ω hbar=ℏ ell=ℓ partial=∂ nabla=∇ infty=∞ emptyset=∅ varnothing=∅ Re=ℜ Im=ℑ aleph=ℵ`);
const SIGNS = names(`times=× cdot=⋅ div=÷ pm=± mp=∓ ast=∗ star=⋆ circ=∘ bullet=∙ oplus=⊕ otimes=⊗ le=≤ leq=≤ ge=≥ geq=≥ ne=≠ neq=≠ approx=≈
  equiv=≡ sim=∼ simeq=≃ cong=≅ propto=∝ ll=≪ gg=≫ in=∈ notin=∉ ni=∋ subset=⊂ subseteq=⊆ supset=⊃ supseteq=⊇ cup=∪ cap=∩ setminus=∖ to=→
  rightarrow=→ leftarrow=← leftrightarrow=↔ Rightarrow=⇒ Leftarrow=⇐ Leftrightarrow=⇔ implies=⟹ iff=⟺ mapsto=↦ uparrow=↑ downarrow=↓
  forall=∀ exists=∃ neg=¬ land=∧ wedge=∧ lor=∨ vee=∨ mid=∣ parallel=∥ perp=⊥ angle=∠ ldots=… dots=… cdots=⋯ vdots=⋮ ddots=⋱ prime=′
  langle=⟨ rangle=⟩ lfloor=⌊ rfloor=⌋ lceil=⌈ rceil=⌉ vert=| lvert=| rvert=| Vert=‖ lVert=‖ rVert=‖ backslash=∖ therefore=∴ because=∵`);
const LARGE = names("sum=∑ prod=∏ int=∫ iint=∬ iiint=∭ oint=∮ bigcup=⋃ bigcap=⋂ bigoplus=⨁ bigotimes=⨂");
const WORDS = "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp lim max min sup inf det dim ker deg arg gcd Pr argmax argmin".split(" ");
const ACCENTS = names("hat=^ widehat=^ bar=¯ overline=¯ vec=→ dot=˙ ddot=¨ tilde=~ widetilde=~");
const FONTS = { mathrm: "normal", mathbf: "bold", boldsymbol: "bold", mathit: "italic", mathbb: "double-struck", mathcal: "script", operatorname: "normal" };
const GAPS = { ",": ".17em", ":": ".22em", ";": ".28em", " ": ".25em", "!": "0", quad: "1em", qquad: "2em" };
const FENCES = { matrix: ["", ""], pmatrix: ["(", ")"], bmatrix: ["[", "]"], vmatrix: ["|", "|"], cases: ["{", ""], aligned: ["", ""], align: ["", ""], "align*": ["", ""] };
const IGNORED = new Set(["displaystyle", "textstyle", "limits", "nolimits", "big", "Big", "bigl", "bigr", "Bigl", "Bigr"]);

/** Return the formula as an element; as code with its delimiters if a part of it is not known. */
export function formula(tex, source, isBlock) {
  try {
    if (tex.length > MAX_CHARACTERS) throw new Error("too long");
    const math = element("math", {}, ...new Parser(tex).all());
    if (isBlock) math.setAttribute("display", "block");
    math.setAttribute("title", source);
    return isBlock ? make("div", { className: "formula" }, math) : math;
  } catch {
    return make("code", { className: "formula" }, source);
  }
}

function element(tag, attributes, ...children) {
  const node = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}
const row = (nodes) => (nodes.length === 1 ? nodes[0] : element("mrow", {}, ...nodes));
const operator = (sign, attributes = {}) => element("mo", attributes, sign);

class Parser {
  constructor(tex) {
    this.tokens = tex.match(/\\[a-zA-Z]+|\\[\s\S]|\d+(?:\.\d+)?|\s+|[\s\S]/gu) || [];
    this.place = 0;
    this.depth = 0;
  }

  all() {
    const nodes = this.nodes(() => false);
    if (this.place < this.tokens.length) throw new Error("a closing sign without an opening one");
    return nodes;
  }

  /** Return the nodes up to a closing token or one that `ends`. */
  nodes(ends) {
    if (++this.depth > MAX_DEPTH) throw new Error("too deep");
    const nodes = [];
    for (;;) {
      this.skipSpace();
      const token = this.tokens[this.place];
      if (token === undefined || token === "}" || token === "\\right" || token === "\\end" || ends(token)) break;
      const node = this.withScripts();
      if (node) nodes.push(node);
    }
    this.depth--;
    return nodes;
  }

  withScripts() {
    const isLarge = this.tokens[this.place].slice(1) in LARGE || this.tokens[this.place] === "\\lim";
    const base = "^_".includes(this.tokens[this.place]) ? element("mrow", {}) : this.atom();
    if (!base) return null;
    let below = null, above = null;
    for (;;) {
      this.skipSpace();
      const token = this.tokens[this.place];
      if (token === "_" && !below) { this.place++; below = this.argument(); }
      else if (token === "^" && !above) { this.place++; above = this.argument(); }
      else if (token === "'" && !above) { this.place++; above = operator("′"); }
      else break;
    }
    const [both, under, over] = isLarge ? ["munderover", "munder", "mover"] : ["msubsup", "msub", "msup"];
    if (below && above) return element(both, {}, base, below, above);
    return below ? element(under, {}, base, below) : above ? element(over, {}, base, above) : base;
  }

  atom() {
    const token = this.next();
    if (token === "{") return this.group();
    if (token.startsWith("\\")) return this.command(token.slice(1));
    if (/^\d/.test(token)) return element("mn", {}, token);
    if (/^\p{L}$/u.test(token)) return element("mi", {}, token);
    if ("&#$%~".includes(token)) { if (token === "~") return this.gap(".25em"); throw new Error(token); }
    return operator(token === "-" ? "−" : token === "*" ? "∗" : token, "()[]|".includes(token) ? { stretchy: "false" } : {});
  }

  command(name) {
    if (name in LETTERS) return element("mi", {}, LETTERS[name]);
    if (name in SIGNS) return operator(SIGNS[name]);
    if (name in LARGE) return operator(LARGE[name], { largeop: "true", movablelimits: "true" });
    if (WORDS.includes(name)) return element("mi", {}, name);
    if (name in GAPS) return this.gap(GAPS[name]);
    if (name in ACCENTS) return element("mover", { accent: "true" }, this.argument(), operator(ACCENTS[name]));
    if (name in FONTS) return this.font(FONTS[name]);
    if (IGNORED.has(name)) return null;
    if ("{}|%&#$_".includes(name)) return operator(name === "|" ? "‖" : name);
    switch (name) {
      case "frac": case "dfrac": case "tfrac": return element("mfrac", {}, this.argument(), this.argument());
      case "binom": return row([operator("("), element("mfrac", { linethickness: "0" }, this.argument(), this.argument()), operator(")")]);
      case "sqrt": return this.root();
      case "text": case "textbf": case "textit": case "mbox": return element("mtext", {}, this.plainText());
      case "underline": return element("munder", {}, this.argument(), operator("_"));
      case "left": return this.fenced();
      case "begin": return this.table();
      default: throw new Error("\\" + name);
    }
  }

  argument() {
    this.skipSpace();
    return this.atom() || element("mrow", {});
  }

  group() {
    const nodes = this.nodes(() => false);
    this.expect("}");
    return row(nodes);
  }

  root() {
    this.skipSpace();
    if (this.tokens[this.place] !== "[") return element("msqrt", {}, this.argument());
    this.place++;
    const index = row(this.nodes((token) => token === "]"));
    this.expect("]");
    return element("mroot", {}, this.argument(), index);
  }

  font(variant) {
    const node = this.argument();
    const inner = node.localName === "mrow" ? [...node.children] : [node];
    if (inner.every((one) => one.localName === "mi" || one.localName === "mn")) {
      return element("mi", { mathvariant: "normal", class: "math-" + variant }, styled(inner.map((one) => one.textContent).join(""), variant));
    }
    return node;
  }

  /** Return the text in braces, as it is. */
  plainText() {
    this.skipSpace();
    this.expect("{");
    let text = "";
    for (let open = 1; open;) {
      const token = this.next();
      open += token === "{" ? 1 : token === "}" ? -1 : 0;
      if (open) text += token;
    }
    return text.replaceAll(" ", "\u00a0");
  }

  fenced() {
    const opening = this.fence();
    const nodes = this.nodes(() => false);
    this.expect("\\right");
    return row([opening, ...nodes, this.fence()]);
  }

  fence() {
    this.skipSpace();
    const token = this.next();
    const name = token.slice(1);
    const sign = token === "." ? "" : token.startsWith("\\") ? SIGNS[name] || (name === "|" ? "‖" : "{}".includes(name) ? name : "") : token;
    return operator(sign, { stretchy: "true", fence: "true" });
  }

  table() {
    const kind = this.plainText().replaceAll("\u00a0", "");
    if (!(kind in FENCES)) throw new Error(kind);
    const rows = [[]];
    for (;;) {
      rows.at(-1).push(element("mtd", {}, ...this.nodes((token) => token === "&" || token === "\\\\")));
      const token = this.next();
      if (token === "\\\\") rows.push([]);
      else if (token === "\\end") break;
      else if (token !== "&") throw new Error(token);
    }
    if (this.plainText() !== kind) throw new Error("another end");
    const body = element("mtable", kind === "cases" || kind.startsWith("align") ? { class: "to-left" } : {}, ...rows.map((cells) => element("mtr", {}, ...cells)));
    const [opening, closing] = FENCES[kind];
    return row([opening, body, closing].filter(Boolean).map((part) => (typeof part === "string" ? operator(part, { stretchy: "true", fence: "true" }) : part)));
  }

  gap(width) { return element("mspace", { width }); }

  skipSpace() { while (/^\s/.test(this.tokens[this.place] || "")) this.place++; }

  next() {
    if (this.place >= this.tokens.length) throw new Error("the formula ends too early");
    return this.tokens[this.place++];
  }

  expect(token) { if (this.next() !== token) throw new Error("expected " + token); }
}

const DOUBLE = { C: "ℂ", H: "ℍ", N: "ℕ", P: "ℙ", Q: "ℚ", R: "ℝ", Z: "ℤ" };
const SCRIPT = { B: "ℬ", E: "ℰ", F: "ℱ", H: "ℋ", I: "ℐ", L: "ℒ", M: "ℳ", R: "ℛ" };

/** Return letters in a style that Unicode has as letters of its own. */
function styled(text, variant) {
  const own = { "double-struck": [DOUBLE, 0x1d538], script: [SCRIPT, 0x1d49c] }[variant];
  if (!own) return text;
  return text.replace(/[A-Z]/g, (letter) => own[0][letter] || String.fromCodePoint(own[1] + letter.charCodeAt(0) - 65));
}
