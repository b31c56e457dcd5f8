"""Run llama.cpp's own server tests against `edge serve`: `python -m tests.edge.serve.llama_server_tests --sdist FILE`

They are in the source package of llama-cpp-python, from which they are unpacked for the run; their code is not kept
here. Their server is a wrapper that translates llama-server's words into those of `edge serve`, and their models are
stories260K, the one that needs no download. `--direct` runs them against llama-server itself, for comparison.

The Python that runs this needs pytest, requests, openai, anthropic, aiohttp, wget, filelock, psutil, prometheus-client.
Status 1 where a test fails that is not in LEFT_OUT and that llama-server passes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[3]
_DATA = Path(os.environ.get("EDGE_DATA", ROOT.parent / "shared" / "data")) / "llm" / "stories260K-hf"
_CONTEXT = 8192  # that the model claims: their tests ask for up to so much
_MODEL, _PROGRAM, _DIRECT = "EDGE_TESTS_MODEL", "EDGE_LLAMA_SERVER", "EDGE_TESTS_DIRECT"
# A file, or a part of a test's name, and why it is not expected to pass here.
LEFT_OUT = {
    "test_router": "edge serve serves one model; the router is llama-server's own, without a model",
    "test_mcp_servers": "tools that a server runs by itself are not offered to whoever can reach it",
    "test_tools_builtin": "tools that a server runs by itself are not offered to whoever can reach it",
    "test_proxy": "a proxy for any address is not offered",
    "test_security": "keys, origins and hosts are checked by our own guard, which is stricter",
    "test_compat_gcp": "a port from the environment and a second set of routes are for one cloud",
    "test_sleep": "the model is kept loaded, so that a request never waits for it",
    "test_slot_save": "files of slots are not written for clients",
    "test_embedding": "downloads its model",
    "test_infill": "downloads its model",
    "test_lora": "downloads its model",
    "test_rerank": "downloads its model",
    "test_speculative": "downloads its model",
    "test_vision_api": "downloads its model",
    "test_load_split_model": "downloads its model",
    "test_no_ui": "the page is ours",
    "test_server_multiple_addresses": "one address: that of --host",
}
_PLUGIN = """
import utils
utils.ServerPreset.load_all = staticmethod(lambda: None)
"""


def translated(words: Sequence[str]) -> list[str]:
    """The words of llama-server in those of `edge serve`."""
    given, passed_on, model = [], [], ""
    slots, context = 0, 0
    rest = iter(words)
    for word in rest:
        if word in ("--hf-repo", "--hf-file", "--model-url"):
            model = os.environ[_MODEL] if "stories260K" in next(rest) or model else "downloads.gguf"
        elif word == "--model":
            model = next(rest)
        elif word == "--parallel":
            slots = int(next(rest))
        elif word == "--ctx-size":
            context = int(next(rest))
        elif word == "--api-key":
            os.environ["EDGE_API_KEY"] = next(rest)
        elif word in ("--port", "--host", "--threads"):
            given += [word, next(rest)]
        elif word == "--alias":
            given += ["--name", next(rest)]
        elif word == "--chat-template-file":
            given += ["--template", next(rest)]
        elif word not in ("--jinja", "--slots", "--metrics", "--no-ui", "--cont-batching"):
            passed_on.append(word)
    if "--template" not in given and "--chat-template" not in passed_on:
        passed_on += ["--chat-template", "chatml"]  # what llama-server takes for a model that has none
    given += ["--slots", str(slots or 4)]
    if context:
        given += ["--context", str(context // (slots or 1))]
    return [model, *given, "--", *passed_on]


def _as_llama_server(words: Sequence[str]) -> None:
    """Become the server that the tests have asked for; they send their signals to this process."""
    if os.environ.get(_DIRECT):
        kept = list(_local(words))
        os.execv(os.environ[_PROGRAM], ["llama-server", *kept])
    os.environ["PYTHONPATH"] = str(ROOT)
    os.execv(sys.executable, [sys.executable, "-m", "edge", "serve", *translated(words)])


def _local(words: Sequence[str]) -> Iterator[str]:
    rest = iter(words)
    for word in rest:
        if word == "--hf-repo" and "stories260K" in (repo := next(rest)):
            yield from ("--model", os.environ[_MODEL]) if "infill" not in repo else ("--offline", word, repo)
        else:
            yield word


def _unpack(sdist: Path, place: Path) -> Path:
    """The tests and the templates that they read; the folder of the tests."""
    wanted = ("/vendor/llama.cpp/tools/server/tests/", "/vendor/llama.cpp/models/templates/")
    with tarfile.open(sdist) as archive:
        members = [one for one in archive.getmembers() if any(part in one.name for part in wanted)]
        archive.extractall(place, members, filter="data")
    return next(place.glob("*/vendor/llama.cpp/tools/server/tests"))


def _model(place: Path) -> Path:
    """stories260K as GGUF, which says that it was trained for _CONTEXT tokens."""
    folder = place / "stories260K"
    shutil.copytree(_DATA, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": _CONTEXT}))
    command = [sys.executable, "-m", "edge", "convert", str(folder), "--to", "gguf", "--out", str(place / "artifact")]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=sys.stderr)
    return next((place / "artifact").glob("*.gguf"))


def _reason(case: str) -> str | None:
    return next((reason for part, reason in LEFT_OUT.items() if part in case), None)


def _count(report: Path) -> bool:
    """Print what passed, file by file; whether all that failed is in LEFT_OUT."""
    counts: dict[str, Counter[str]] = {}
    failed: list[str] = []
    for case in ElementTree.parse(report).iter("testcase"):
        file = case.get("classname", "").rpartition(".")[2]
        name = f"{file}::{case.get('name')}"
        states = [kind for kind in ("failure", "error", "skipped") if case.find(kind) is not None]
        state = "passed" if not states else "skipped" if states == ["skipped"] else "failed"
        if state == "failed" and _reason(name):
            state = "left out"
        counts.setdefault(file, Counter())[state] += 1
        if state == "failed":
            failed.append(name)
    for file, count in sorted(counts.items()):
        print(f"{file:28} " + ", ".join(f"{count[state]} {state}" for state in count))
    total = sum(counts.values(), Counter())
    print("all: " + ", ".join(f"{number} {state}" for state, number in total.items()))
    for name in failed:
        print(f"failed: {name}")
    return not failed


def main() -> int:
    """Run them."""
    if sys.argv[1:2] == ["--as-llama-server"]:
        _as_llama_server(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sdist", type=Path, required=True, help="llama_cpp_python-VERSION.tar.gz")
    parser.add_argument("--llama-server", default=os.environ.get(_PROGRAM), help="as `make llama` compiles it")
    parser.add_argument("--direct", action="store_true", help="against llama-server itself")
    parser.add_argument("--model", type=Path, help="a GGUF of stories260K; converted anew where left out")
    parser.add_argument("--port", default="18090")
    parser.add_argument("words", nargs="*", help="for pytest, behind --")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        tests = _unpack(args.sdist, place)
        (tests / "edgeshim.py").write_text(_PLUGIN)
        wrapper = place / "llama-server"
        wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).resolve()} --as-llama-server "$@"\n')
        wrapper.chmod(0o755)
        environment = {
            **os.environ, "LLAMA_SERVER_BIN_PATH": str(wrapper), "PORT": args.port, "PYTHONPATH": str(tests),
            _MODEL: str((args.model or _model(place)).resolve()), _PROGRAM: args.llama_server,
            **({_DIRECT: "1"} if args.direct else {}),
        }  # fmt: skip
        command = [sys.executable, "-m", "pytest", "-p", "edgeshim", "-p", "no:randomly", "-m", "not slow", "-q"]
        command += ["--tb=line", f"--junitxml={place / 'report.xml'}", *args.words]
        subprocess.run(command, cwd=tests, env=environment, check=False)
        return 0 if _count(place / "report.xml") else 1


if __name__ == "__main__":
    sys.exit(main())
