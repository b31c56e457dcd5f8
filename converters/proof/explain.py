"""Explain a failed proof: find the first tensor that differs, in a process of its own with limits.

    python -m converters.proof.explain JOB.json

It must never hide the verdict: whatever happens here, the proof's own message is reported. The memory limit needs
POSIX.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from converters.proof.divergence import Divergence, LostSlice, first_divergence
from converters.proof.inner_tensors import READABLE, inner_tensors
from runtimes.arrays import Arrays, load_arrays, save_arrays
from runtimes.errors import first_line

LIMIT_S = 20.0
_LIMIT_BYTES = 12 * 2**30  # of address space, part of which libraries alone take
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ModelWithInput:
    """A model file, its format, and one input for it: by name, or in the order of its inputs."""

    path: Path
    format: str
    feeds: Arrays


def explain(
    source: ModelWithInput,
    result: ModelWithInput,
    precision: str,
    scratch: Path,
    lost: LostSlice | None = None,
) -> Divergence | None:
    """Return the first tensor that differs; None if it is not found in time, or a model cannot be read."""
    if source.format not in READABLE or result.format not in READABLE:
        return None
    folder = scratch / "divergence"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        models = [_store(model, folder / f"{place}.npz") for place, model in enumerate((source, result))]
        job, answer = folder / "job.json", folder / "answer.json"
        answer.unlink(missing_ok=True)
        document = {
            "models": models,
            "precision": precision,
            "answer": str(answer),
            "lost": asdict(lost) if lost else None,
        }
        job.write_text(json.dumps(document), encoding="utf-8")
        paths = os.pathsep.join(path for path in sys.path if path)
        command = [sys.executable, "-P", "-m", "converters.proof.explain", str(job)]
        environment = {**os.environ, "PYTHONPATH": paths}
        done = subprocess.run(command, env=environment, capture_output=True, timeout=LIMIT_S, check=False)
        if not answer.is_file():
            _log.debug("no divergence found: %s", done.stderr[-2000:].decode("utf-8", "replace"))
            return None
        found = json.loads(answer.read_text(encoding="utf-8"))
        return Divergence(**found) if found else None
    except Exception as error:  # any failure to explain leaves the verdict as it is
        _log.debug("no divergence found: %s", first_line(error))
        return None


def _store(model: ModelWithInput, place: Path) -> list[str]:
    save_arrays(place, {f"{index:04d}:{name}": values for index, (name, values) in enumerate(model.feeds.items())})
    return [str(model.path.resolve()), model.format, str(place)]


def _feeds(path: Path) -> Arrays:
    stored = load_arrays(path)
    return {name.split(":", 1)[1]: stored[name] for name in sorted(stored)}


def main(arguments: Sequence[str]) -> int:
    """Read the job, compare, and write the answer."""
    _limit_memory()
    job = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    source, result = (
        inner_tensors(Path(path), model_format, _feeds(Path(feeds))) for path, model_format, feeds in job["models"]
    )
    lost = LostSlice(**job["lost"]) if job["lost"] else None
    found = first_divergence(source, result, job["precision"], lost)
    Path(job["answer"]).write_text(json.dumps(found.as_dict() if found else None), encoding="utf-8")
    return 0


def _limit_memory() -> None:
    if sys.platform != "win32":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = _LIMIT_BYTES if hard == resource.RLIM_INFINITY else min(hard, _LIMIT_BYTES)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
