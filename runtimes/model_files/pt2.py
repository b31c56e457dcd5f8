"""Check that a PyTorch archive contains only data, no code.

`torch.export.load` is written for trusted files: it falls back to unrestricted unpickling where restricted unpickling
fails, evaluates the expressions of symbolic sizes, resolves the operator of a node from any attribute below `torch`,
and compiles Python from the names in the graph. So before PyTorch opens the archive, it is checked against an allowlist
of what an exported model needs; anything else is refused. The layout is that of PyTorch 2.9 and later,
https://docs.pytorch.org/docs/stable/export/pt2_archive.html
"""

from __future__ import annotations

import json
import re
from typing import Any, Callable, Iterable, Iterator

Read = Callable[[str], bytes]

_FOLDERS = ("data/weights/", "data/constants/", "data/sample_inputs/", "models/", "extra/", ".data/")
_FILES = ("archive_format", "archive_version", "byteorder")

# Operators that only compute; `from_file`, `save` and the like access the disk.
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|quantized_decomposed)\.\w+(\.\w+)?"
    r"|torch\.ops\.higher_order\.(cond|while_loop|wrap_with_set_grad_enabled|wrap_with_autocast)"
    r"|torch\.sym_\w+"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|pos|abs|getitem|eq|ne|lt|le|gt|ge|and_|or_|not_)"
    r"|math\.(ceil|floor|trunc|sqrt|pow)"
)
_REACHES_OUT = re.compile(r"\.(from_file|save|load\w*|__(?!and|or|xor|lshift|rshift)\w*|record_\w+)(\.|$)")

# A symbolic size: numbers, operators, sizes such as s40, and functions of integers; no attribute, no other name.
_EXPRESSION = re.compile(
    r"(?:\s|\d+(?:\.\d+)?|[-+*/%<>=&|~,()]|Symbol\('[a-z]+\d+'|[suz]f?\d+|(?:positive|integer|nonnegative)=True"
    r"|(?:True|False|oo|int_oo|Add|Mul|Pow|Integer|Rational|(?:Strict)?(?:Greater|Less)Than|Equality|Unequality"
    r"|And|Or|Not|FloorDiv|ModularIndexing|Where|PythonMod|Mod|CleanDiv|CeilToInt|FloorToInt|CeilDiv"
    r"|PowByNatural|IntTrueDiv|TruncToInt|Identity|Max|Min|Eq|Ne|floor|ceiling|Abs)(?![\w.]))*"
)
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_PLAIN = re.compile(r"[\w.:/ -]*")
# The message of a check of sizes that depend on values, which the exporter writes.
_ASSERTION = re.compile(r"Runtime assertion failed for expression [\w\s+*/%<>=&|~,().-]+ on node '\w+'")
_EINSUM = re.compile(r"[A-Za-z ,.]*->[A-Za-z .]*")  # its axes: "bij, bjk -> bik"
_UNREAD = ("stack_trace", "torch_version", "nn_module_stack", "torch_fn", "guards_code")
_NAMES = ("name", "as_name", "forward_arg_names")
_CONTAINERS = (
    None,
    "builtins.tuple",
    "builtins.list",
    "builtins.dict",
    "collections.OrderedDict",
    "torch.fx.immutable_collections.immutable_list",  # of modules that were TorchScript
    "torch.fx.immutable_collections.immutable_dict",
)


def unsafe_content(records: Iterable[str], read: Read) -> str | None:
    """Describe the first thing in the archive that is not on the allowlist; None if everything is.

    records: The names of the archive's entries, without its root folder.
    read: Returns the content of an entry.

    The caller must also check the entries of `pickles` with PyTorch's restricted unpickler.
    """
    names = list(records)
    if len(set(names)) != len(names):
        return "two entries of one name"
    for name in names:
        if not name.startswith(_FOLDERS) and name not in _FILES:
            return f"the entry '{name}'"
    return next(_findings(names, read), None)


def pickles(records: Iterable[str]) -> list[str]:
    """Return the entries that PyTorch unpickles."""
    return [name for name in records if name.startswith("data/") and name.endswith(".pt")]


def _findings(names: Iterable[str], read: Read) -> Iterator[str]:
    for name in names:
        if not name.endswith(".json"):
            continue
        document = json.loads(read(name).decode("utf-8"))
        if name.startswith("models/"):
            yield from _in_graph(document, "")
        else:
            yield from _in_payloads(document)


def _in_payloads(config: Any) -> Iterator[str]:
    for name, payload in config.get("config", {}).items():
        if payload.get("use_pickle") or not re.fullmatch(r"(weight|tensor)_\d+", payload.get("path_name", "")):
            yield f"the pickled object '{name}'"


def _in_graph(value: Any, key: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, item in value.items():
            if not _PLAIN.fullmatch(name):
                yield f"the name {name!r}"
            if name == "name" and item == "" and "arg" in value:  # arguments of cond and while_loop have no name
                continue
            yield from _in_graph(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _in_graph(item, key)
    elif isinstance(value, str) and not _is_harmless(value, key):
        yield f"the {key.replace('_', ' ')} {value[:80]!r}"


def _is_harmless(text: str, key: str) -> bool:
    if key in _UNREAD:
        return True
    if key in ("target", "as_operator"):
        return bool(_OPERATOR.fullmatch(text)) and not _REACHES_OUT.search(text)
    if key == "expr_str":
        return bool(_EXPRESSION.fullmatch(text))
    if key in ("in_spec", "out_spec"):
        return text == "" or _is_plain_tree(json.loads(text)[1])
    if key == "as_string" and (_EINSUM.fullmatch(text) or _ASSERTION.fullmatch(text)):
        return True
    return bool((_IDENTIFIER if key in _NAMES else _PLAIN).fullmatch(text))


def _is_plain_tree(tree: Any) -> bool:
    context = tree["context"]
    plain = context is None or "__enum__" not in context
    return tree["type"] in _CONTAINERS and plain and all(_is_plain_tree(child) for child in tree["children_spec"])
