"""Run llama.cpp's own server tests against `edge serve`: `python -m tests.edge.serve.llama_server_tests --sdist FILE`

They are in the source package of llama-cpp-python, from which they are unpacked for the run; their code is not kept
here. Their server is a wrapper that translates llama-server's words into those of `edge serve`, and their models are
stories260K, the one that needs no download.

`--out FILE` keeps the outcomes, so that the tests can be run in parts (`-- unit/test_completion.py`), and also those of
`--direct`, which runs them against llama-server itself; `--page` prints a page of documentation from that file. A test
that llama-server fails as well, such as one that downloads its model, is not expected to pass.

The Python that runs this needs pytest, requests, openai, anthropic, aiohttp, wget, filelock, psutil, prometheus-client.
Status 1 where a test fails that is not in LEFT_OUT.
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
_CONTEXT = 8192  # that the model claims: their tests ask for up to so much
_MODEL, _PROGRAM, _DIRECT = "EDGE_TESTS_MODEL", "EDGE_LLAMA_SERVER", "EDGE_TESTS_DIRECT"
# A file, which is not run, or a part of a test's name, and why it is not expected to pass here.
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
    "test_metrics_disabled": "/metrics is always there",
    "test_server_multiple_addresses": "one address: that of --host",
}
# Nothing is downloaded, and headers are found in any case: uvicorn writes their names in lower case.
_PLUGIN = """
import requests.structures
import utils
utils.ServerPreset.load_all = staticmethod(lambda: None)
ask = utils.ServerProcess.make_request
def make_request(self, *words, **named):
    answer = ask(self, *words, **named)
    answer.headers = requests.structures.CaseInsensitiveDict(answer.headers)
    return answer
utils.ServerProcess.make_request = make_request
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
    shutil.copytree(Path(os.environ["EDGE_DATA"]) / "llm" / "stories260K-hf", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": _CONTEXT}))
    command = [sys.executable, "-m", "edge", "convert", str(folder), "--to", "gguf", "--out", str(place / "artifact")]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=sys.stderr)
    return next((place / "artifact").glob("*.gguf"))


def _reason(case: str) -> str | None:
    return next((reason for part, reason in LEFT_OUT.items() if part in case), None)


def _outcomes(report: Path) -> dict[str, str]:
    """Whether each test passed, failed or was skipped, by `file::test`."""
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        states = [kind for kind in ("failure", "error", "skipped") if case.find(kind) is not None]
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        found[name] = "passed" if not states else "skipped" if states == ["skipped"] else "failed"
    return found


def _judged(ours: dict[str, str], theirs: dict[str, str]) -> dict[str, str]:
    """The outcomes with `edge serve`, where what failed is "left out" for a reason, or "not here" for both."""

    def judge(name: str, outcome: str) -> str:
        if outcome != "failed":
            return outcome
        return "not here" if theirs.get(name) == "failed" else "left out" if _reason(name) else "failed"

    return {name: judge(name, outcome) for name, outcome in ours.items()}


def _counts(outcomes: dict[str, str]) -> dict[str, Counter[str]]:
    """The number of tests by file and outcome."""
    counts: dict[str, Counter[str]] = {}
    for name, outcome in outcomes.items():
        counts.setdefault(name.partition("::")[0], Counter())[outcome] += 1
    return dict(sorted(counts.items()))


def _print(outcomes: dict[str, str]) -> None:
    for file, count in _counts(outcomes).items():
        print(f"{file:28} " + ", ".join(f"{count[state]} {state}" for state in count))
    print("all: " + ", ".join(f"{number} {state}" for state, number in Counter(outcomes.values()).items()))
    for name in [name for name, outcome in outcomes.items() if outcome == "failed"]:
        print(f"failed: {name}")


_KINDS = ("passed", "failed", "left out", "not here", "skipped")


def _page(ours: dict[str, str], theirs: dict[str, str], version: str) -> str:
    """docs/reference/llama-server-tests.md."""
    counts, passed = _counts(ours), _counts(theirs)
    rows = [f"| {file} | {passed[file]['passed']} | {' | '.join(_cells(count))} |" for file, count in counts.items()]
    total = Counter(ours.values())
    all_passed = Counter(theirs.values())["passed"]
    reasons = [f"| `{part}` | {reason} |" for part, reason in LEFT_OUT.items()]
    return "\n".join(
        (
            "# llama.cpp's server tests",
            "",
            f"The tests of llama.cpp's own server (`tools/server/tests/unit/` in {version}), without those",
            "marked slow, run against `edge serve` and, for comparison, against llama-server, without a network:",
            "",
            "    python -m tests.edge.serve.llama_server_tests --sdist SDIST --llama-server EXE --out FILE [--direct]",
            "    python -m tests.edge.serve.llama_server_tests --out FILE --page",
            "",
            f"llama-server passes {all_passed}, `edge serve` {total['passed']}; {total['left out']} single tests are"
            f" left out for the reasons below, {total['failed']} fail. Files that are left out are not run.",
            "",
            "- **left out**: fails with `edge serve`, for a reason below.",
            "- **not here**: fails with llama-server as well, mostly because it downloads a model.",
            "",
            f"| file | llama-server passes | {' | '.join(_KINDS)} |",
            f"|---|{'---|' * (len(_KINDS) + 1)}",
            *rows,
            f"| all | {all_passed} | {' | '.join(_cells(total))} |",
            "",
            "| left out | reason |",
            "|---|---|",
            *reasons,
            "",
        )
    )


def _cells(count: Counter[str]) -> list[str]:
    return [str(count[kind] or "") for kind in _KINDS]


def main() -> int:
    """Run them."""
    if sys.argv[1:2] == ["--as-llama-server"]:
        _as_llama_server(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sdist", type=Path, help="llama_cpp_python-VERSION.tar.gz")
    parser.add_argument("--llama-server", default=os.environ.get(_PROGRAM), help="as `make llama` compiles it")
    parser.add_argument("--direct", action="store_true", help="against llama-server itself")
    parser.add_argument("--out", type=Path, metavar="FILE", help="keep the outcomes in this file, beside earlier ones")
    parser.add_argument("--page", action="store_true", help="run nothing, and print the page from the file of --out")
    parser.add_argument("--model", type=Path, help="a GGUF of stories260K; converted anew where left out")
    parser.add_argument("--port", default="18090")
    parser.add_argument("words", nargs="*", help="for pytest, behind --")
    args = parser.parse_args()
    kept = json.loads(args.out.read_text()) if args.out and args.out.exists() else {}
    if args.page:
        print(_page(_judged(kept["edge"], kept["llama"]), kept["llama"], kept["version"]), end="")
        return 0
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
        found = _run(tests, environment, args.words)
    kept.setdefault("llama" if args.direct else "edge", {}).update(found)
    kept["version"] = args.sdist.name.removesuffix(".tar.gz")
    if args.out:
        args.out.write_text(json.dumps(kept, indent=1))
    judged = found if args.direct else _judged(found, kept.get("llama", {}))
    _print(judged)
    return int(not args.direct and "failed" in judged.values())


def _run(tests: Path, environment: dict[str, str], words: Sequence[str]) -> dict[str, str]:
    report = tests / "report.xml"
    command = [sys.executable, "-m", "pytest", "-p", "edgeshim", "-p", "no:randomly", "-m", "not slow", "-q"]
    left_out = [f"--ignore={path}" for part in LEFT_OUT if (path := tests / "unit" / f"{part}.py").exists()]
    command += ["--tb=line", f"--junitxml={report}", *left_out, *words]
    subprocess.run(command, cwd=tests, env=environment, check=False)
    return _outcomes(report)


if __name__ == "__main__":
    sys.exit(main())
