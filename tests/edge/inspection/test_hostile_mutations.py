"""Real models with seeded damage, through inspection and through the engines, in a worker process that is reused.

Whatever comes back has to be an answer or an error of our own tree. A worker may crash, as engines are native code,
but only as a WorkerError; how often that happened is printed (`pytest -rP`).
"""

from __future__ import annotations

import importlib.util
import io
import json
import math
import random
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.inspection import inspect
from edge.workers.process import Worker
from runtimes.artifact import Artifact, TensorSpec
from runtimes.errors import EdgeError, WorkerError
from runtimes.jobs import DescribeJob, RunJob
from tests.real_data import real_data

ROOT = Path(__file__).parents[3]
MODELS = ROOT / "tests" / "runtimes" / "models"
COUNT = 240  # mutated files for each model
SECONDS = 120  # for one job: a busy machine is slow, what hangs is not over then either
MEMORY = 8 * 2**30  # bytes of data that a worker may ask for
MAX_VALUES = 100_000  # of an input that is made up for a model

# A worker that cannot take the machine's memory with it: sizes in a mutated file may be anything.
WORKER = f"""
import resource
from runtimes.worker import HANDLERS, serve
resource.setrlimit(resource.RLIMIT_DATA, ({MEMORY}, {MEMORY}))
serve(HANDLERS)
"""


def needs(library: str) -> None:
    """Skip where an engine is not installed; it is not imported here, the parent of workers never does."""
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    if not sys.platform.startswith("linux"):
        pytest.skip("RLIMIT_DATA keeps the machine safe on Linux alone")
    (tmp_path / "bounded_worker.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Worker("bounded_worker") as process:
        yield process


# ---- damage


def flip(chance: random.Random, content: bytes) -> bytes:
    damaged = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 8))):
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def truncate(chance: random.Random, content: bytes) -> bytes:
    return content[: chance.randrange(len(content))]


def swap(chance: random.Random, content: bytes) -> bytes:
    size = chance.randint(1, max(1, len(content) // 4))
    first, second = sorted(chance.randrange(len(content) - size + 1) for _ in range(2))
    if second < first + size:
        return content[:first] + content[second:] + content[first:second]
    between = content[first + size : second]
    return (
        content[:first]
        + content[second : second + size]
        + between
        + content[first : first + size]
        + content[second + size :]
    )


def largest_length(chance: random.Random, content: bytes) -> bytes:
    """Sizes and offsets of binary formats are mostly aligned words."""
    place = chance.randrange(max(1, len(content) - 3)) // 4 * 4
    return content[:place] + b"\xff" * 4 + content[place + 4 :]


DAMAGE: tuple[Callable[[random.Random, bytes], bytes], ...] = (flip, flip, flip, truncate, swap, largest_length)
JUNK = (None, -1, 2**40, 1e308, "x" * 100, [], {}, True, [[[]]], "../../outside")


def damaged(chance: random.Random, content: bytes) -> bytes:
    return chance.choice(DAMAGE)(chance, content) if content else b"\xff"


def damaged_json(chance: random.Random, content: bytes) -> bytes:
    """One value of the document replaced, so that the result is still JSON."""
    document = json.loads(content)
    places = list(_places(document))
    if places:
        holder, key = chance.choice(places)
        holder[key] = chance.choice(JUNK)
    return json.dumps(document).encode()


def _places(value: object) -> Iterator[tuple[object, object]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def damaged_archive(chance: random.Random, content: bytes) -> bytes:
    """The archive itself, or one member of it within a sound archive: checksums would hide most of the former."""
    if chance.random() < 0.25:
        return damaged(chance, content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    victim = chance.choice(list(members))
    is_json = victim.endswith(".json") and chance.random() < 0.7
    members[victim] = (damaged_json if is_json else damaged)(chance, members[victim])
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return written.getvalue()


def mutants(source: Path, folder: Path) -> Iterator[Path]:
    """`COUNT` damaged copies of the model, one after the other, under the same name."""
    target, weights = folder / source.name, source.with_suffix(".bin")
    damage = damaged_archive if zipfile.is_zipfile(source) and source.suffix != ".tflite" else damaged
    for index in range(COUNT):
        chance = random.Random(f"{source.name}:{index}")
        if source.suffix == ".xml":
            hits_weights = chance.random() < 0.2
            target.with_suffix(".bin").write_bytes(
                damaged(chance, weights.read_bytes()) if hits_weights else weights.read_bytes()
            )
            target.write_bytes(source.read_bytes() if hits_weights else damaged(chance, source.read_bytes()))
        else:
            target.write_bytes(damage(chance, source.read_bytes()))
        yield target


# ---- what comes of it


def look(path: Path) -> str:
    try:
        json.dumps(inspect(Artifact.open(path)).to_json(), allow_nan=False)
    except EdgeError as error:
        return _refusal(error)
    return "read"


def use(worker: Worker, path: Path, folder: Path) -> str:
    """Open the model and run it once, on zeros."""
    try:
        specs = worker.run(DescribeJob(str(path)), timeout_s=SECONDS).inputs
        feeds = {spec.name: _zeros(spec) for spec in specs}
        if sum(feed.size for feed in feeds.values()) > MAX_VALUES:
            return "opened, too large to run"
        np.savez(folder / "in.npz", **feeds)
        worker.run(RunJob(str(path), str(folder / "in.npz"), str(folder / "out.npz")), timeout_s=SECONDS)
    except WorkerError as error:
        return f"worker: {_refusal(error)}"
    except EdgeError as error:
        return _refusal(error)
    return "ran"


def _zeros(spec: TensorSpec) -> np.ndarray:
    shape = [size if isinstance(size, int) else 1 for size in spec.shape]
    return np.zeros((1, *shape) if math.prod(shape) <= MAX_VALUES else (MAX_VALUES + 1,), spec.dtype)


def _refusal(error: EdgeError) -> str:
    assert error.message
    assert "\n" not in error.message + error.hint
    return type(error).__name__


def report(name: str, outcomes: Counter[str]) -> None:
    print(f"{name}: {sum(outcomes.values())} mutated files: {dict(outcomes.most_common())}")


ENGINES = {
    "onnxruntime.onnx": "onnxruntime",
    "litert.tflite": "ai_edge_litert",
    "quantized.tflite": "ai_edge_litert",
    "openvino.xml": "openvino",
    "keras.keras": "keras",
    "torch.pt2": "torch",
}


def _files_in(folder: Path) -> list[Path]:
    """What lies in a folder, without the byte code of the worker's module there."""
    return sorted(path for path in folder.iterdir() if path.name != "__pycache__")


@pytest.mark.parametrize("name", ENGINES)
def test_engines_answer_or_refuse(worker, tmp_path, name):
    needs(ENGINES[name])
    (tmp_path / "models").mkdir()
    before = _files_in(tmp_path)
    outcomes = Counter(use(worker, path, tmp_path / "models") for path in mutants(MODELS / name, tmp_path / "models"))
    report(name, outcomes)
    assert outcomes["ran"] > 0, "the damage leaves nothing to run"
    assert outcomes["InputError"] > COUNT / 4, "the damage is hardly noticed"
    assert sum(count for outcome, count in outcomes.items() if outcome.startswith("worker")) <= COUNT / 20
    assert _files_in(tmp_path) == before


@pytest.mark.parametrize("name", [*ENGINES, "tensorflow/saved_model.pb"])
def test_inspection_answers_or_refuses(tmp_path, name):
    is_folder = name.endswith(".pb")
    files = mutants(MODELS / name, tmp_path)
    outcomes = Counter(look(path.parent if is_folder else path) for path in files)
    report(name, outcomes)
    assert set(outcomes) == {"read", "InputError"}


@pytest.mark.data
@pytest.mark.parametrize(
    "name",
    ["tools/split_concat_edgetpu.tflite", "keras_lstm_mnist_ptq_edgetpu.tflite", "mobilenet_v1_0.25_128_quant.tflite"],
)
def test_inspection_of_real_files_answers_or_refuses(tmp_path, name):
    outcomes = Counter(look(path) for path in mutants(real_data(f"edgetpu/{name}"), tmp_path))
    report(name, outcomes)
    assert set(outcomes) == {"read", "InputError"}
