"""Explain why llama.cpp's converter or transformers failed: which file or key of the user's folder, and what to do.

Both are written for developers: they name only a key, or a path of the staged copy that they read (staging.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from converters.gguf.model_config import ModelConfig
from converters.library_calls import useful_text

_COPY = "copy it from where the model was published"
_NO_CODE = "what works: models whose tokenizer is in a tokenizer.json, and whose architecture transformers includes"
_OTHERWISE = "this is the error of llama.cpp's converter, or of transformers; --debug shows its full output"
# Patterns of "class: text" of an exception → what is wrong, with the pattern's groups, and what to do. The first
# pattern that is found is used. Sources: `raise` in conversion/ and gguf-py/ of llama.cpp 0c1e570, transformers 4.57
# and torch 2.13.
_RULES = (
    (
        r"(?i)(?:file not found|no such file or directory|missing|cannot find|a file named)\W+([\w.-]+\.\w+)",
        "it needs {0}, which the folder does not have",
        _COPY,
    ),
    (
        r"couldn't connect to|couldn't find them in the cached|network is blocked",
        "it needs a file that the folder does not have, and conversions download nothing",
        "copy all files of the published model into the folder, except its code",
    ),
    (
        r"Tokenizer class (\w+) does not exist",
        "the tokenizer, {0}, only exists as Python code, and edge never runs code of a model",
        _NO_CODE,
    ),
    (
        r"trust_remote_code|custom code|needs code from its folder",
        "it needs Python code from the folder, which edge never runs",
        _NO_CODE,
    ),
    (
        r"Can't load tokenizer for|Couldn't instantiate the backend tokenizer",
        "the files of the tokenizer are incomplete or damaged",
        "copy the tokenizer's files from where the model was published",
    ),
    (
        r"KeyError: ['\"]+([<\[][^'\"]+[>\]])['\"]",
        "the tokenizer has no token {0}, which is needed for this architecture",
        "use the tokenizer that the model was published with",
    ),
    (
        r"pre-tokenizer .*(?:not recognized|not supported)",
        "llama.cpp does not know the pre-tokenizer in tokenizer.json",
        "use the tokenizer.json that the model was published with; edge does not guess, because tokens would be wrong",
    ),
    (
        r"[Cc]an ?not map tensor:? '?([\w.]+)",
        "the weights contain {0}, which is not a part of the architecture that config.json names",
        "use the config.json that belongs to the weights; if training added the tensor, remove it",
    ),
    (
        r"model type `?([\w.-]+)`? but Transformers does not recognize",
        "transformers 4 does not know the model type {0}, so it cannot compute the scores for the proof",
        "pip install 'edgeproof[gguf-proof]' installs a newer one",
    ),
    (
        r"No module named '([\w.]+)'|(mistral[-_]common)",
        "it needs the library {0}, which edge's environment for the converter does not contain",
        "use the folder in the format of transformers, with a tokenizer.json",
    ),
    (
        r"Weights only load failed|UnpicklingError|PytorchStreamReader|central directory",
        "the .bin files are damaged, or contain more than tensors, and edge unpickles nothing else",
        "save the weights as safetensors",
    ),
    (r"No space left on device", "the disk is full", "free some space, or choose another place with --out"),
    (
        r"not enough memory|can't allocate memory",
        "there is not enough memory for it",
        "close other programs, or convert it on a machine with more memory",
    ),
    (
        r"RuntimeError: (.*(?:shape|size|must match|cannot be multiplied).*)",
        "the sizes in config.json do not fit the weights ({0})",
        "use the config.json that the model was saved with",
    ),
)
_MORE_TOKENS = re.compile(r"max\(.*vocab.*\) < ")
# Classes whose text says little without the class.
_TERSE = ("KeyError", "IndexError", "TypeError", "AttributeError", "AssertionError", "StopIteration", "SystemExit")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An exception of the converter.

    Attributes:
        kind: The name of its class.
        text: Its text.
        line: The line of code that raised it.
    """

    kind: str
    text: str
    line: str = ""


def explain(failure: Failure, config: ModelConfig, staged: Path) -> tuple[str, str]:
    """Return what is wrong with the folder of `config`, of which `staged` is the copy, and what to do."""
    text = _without_paths(failure.text, staged)
    if failure.kind == "KeyError" and (key := _missing_key(text, config)):
        what = f"config.json has no {key}, which is needed for {config.architecture}"
        return what, "add it as in the config.json that the model was published with"
    if failure.kind == "AssertionError" and not text:
        return _explain_assertion(failure.line)
    for pattern, what, hint in _RULES:
        found = re.search(pattern, f"{failure.kind}: {text}")
        if found:
            return what.format(*(group for group in found.groups() if group)), hint
    line = useful_text(text)
    return f"{failure.kind}: {line}" if line and failure.kind in _TERSE else line or failure.kind, _OTHERWISE


def _without_paths(text: str, staged: Path) -> str:
    """Leave out the folders of temporary files: the staged copy and those next to it."""
    place = rf"{re.escape(str(staged.parent))}/[\w-]+"
    return re.sub(place, "the folder", re.sub(rf"{place}/(?=[\w.])", "", text))


def _missing_key(text: str, config: ModelConfig) -> str | None:
    """Return the names of a key that config.json lacks; None if the text is about something else."""
    named = re.fullmatch(r"['\"]*(\w+)['\"]*", text)
    if named:
        parts = [config, config.text] if config.text else [config]
        return None if any(named[1] in part.content for part in parts) else named[1]
    several = re.search(r"could not find any of: \W*(\w+(?:\W+\w+)*)", text)
    if several:
        return " or ".join(re.findall(r"\w+", several[1]))
    required = re.search(r"required key ([\w.]+)", text)
    return required[1] if required else None


def _explain_assertion(line: str) -> tuple[str, str]:
    condition = line.removeprefix("assert ").split("  #")[0]
    if _MORE_TOKENS.search(condition):
        what = "the tokenizer has more tokens than config.json says (vocab_size)"
        return what, "use the tokenizer and the config.json that the model was saved with"
    what = f"llama.cpp's converter only supports models with `{condition}`"
    return what, "compare config.json with the one that the model was published with; --debug shows where it is checked"
