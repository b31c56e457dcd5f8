"""Spread an evaluation over the workers of a Dask cluster.

The model's files are sent once for each content digest, and handed on from worker to worker. The inputs are sent in
chunks, of which only a few are on their way at a time, so that memory is bounded whatever the size of the data set. A
chunk whose worker dies is given to another one by Dask; its answer is taken once.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any

from converters.pytorch.hugging_face_config import TOKENIZER
from edge.evaluation.cluster_worker import Chunk, InstalledModel, SentInput, score_chunk
from edge.evaluation.labeled_inputs import LabeledInput
from edge.evaluation.labeled_masks import LabeledMask
from edge.evaluation.scoring import ScoredInput
from edge.inference.inputs import Source
from edge.inference.prediction import Unreadable
from edge.inference.prepared_model import EngineChoice, PreparedModel
from edge.inference.texts import tokenizer_beside
from runtimes.artifact import MANIFEST, SELFCHECK, Artifact
from runtimes.artifact.json_fields import JsonObject
from runtimes.errors import EngineMissingError, HostError, InputError, UsageError, WorkerCrashedError, from_dict
from runtimes.registry import install_hint

if TYPE_CHECKING:
    from distributed import Client, Future

Answer = tuple[LabeledInput, ScoredInput | Unreadable]

_CONNECT_S = 15.0  # also for the first worker
_WORKER_TIMEOUT_S = 60.0  # without any worker, while inputs wait
_CHUNK_INPUTS = 16  # a task costs Dask some milliseconds; a worker that dies costs the chunk that it was working on
_CHUNKS_EACH = 4  # at least, for each thread: the less a worker takes at once, the less a slow one delays the end
_CHUNK_BYTES = 8 << 20  # Dask warns of tasks of 10 MB
_MAX_INPUT_BYTES = 1 << 28
_DISTRIBUTION = "edgeproof"
_SCHEMES = ("tcp", "tls", "ucx", "ws", "wss")
_VERSIONS_HINT = "install the same on the scheduler and on every worker: pip install 'edgeproof[cluster]'"
_START_HINT = "start it with `dask scheduler` and `dask worker`, and pass the address that the scheduler prints"


class Cluster:
    """A connection to the scheduler of a Dask cluster; a context manager."""

    def __init__(self, address: str) -> None:
        """Connect, and compare versions.

        Raises EngineMissingError without Dask, UsageError for what is not an address, and HostError if the cluster
        cannot be reached, has no workers, or runs other versions of edge, Dask or Python.
        """
        self._address = address
        self._client = _connect(address)
        try:
            self._client.wait_for_workers(1, timeout=_CONNECT_S)
            _check_versions(self._client.get_versions(packages=[_DISTRIBUTION]))
        except TimeoutError:
            self._client.close()
            raise HostError(f"the cluster at {address} has no workers", _START_HINT) from None
        except BaseException:
            self._client.close()
            raise

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def score(
        self,
        model: PreparedModel,
        files: Mapping[str, Path],
        inputs: Sequence[LabeledInput],
        engine: EngineChoice,
    ) -> Iterator[Answer]:
        """Yield what each input gives, in the order in which the workers answer.

        files: The model's files by their name in the artifact's folder.
        engine: Where it leaves the number of threads open, an engine takes one, because each thread of a worker has an
            engine of its own.

        Raises what the workers raise, and HostError if the cluster is lost.
        """
        installed = self._install(files)
        threads = max(1, sum(self._client.nthreads().values()))
        run, done, pending = uuid.uuid4().hex[:8], Queue[Any](), dict[str, list[LabeledInput]]()
        for number, chunk in enumerate(_chunks(inputs, threads)):
            sent = list[SentInput]()
            for one in chunk:
                try:
                    sent.append(_read(*one))
                except InputError as error:
                    yield one, Unreadable(str(one[0]), error)
            if sent:
                task = Chunk(
                    model=model,
                    runtime=engine.runtime,
                    threads=engine.threads or 1,
                    timeout_s=engine.timeout_s,
                    inputs=tuple(sent),
                )
                future = self._client.submit(score_chunk, installed, task, key=f"edge-{run}-{number}", pure=False)
                future.add_done_callback(done.put)
                pending[future.key] = [(one.source, one.label) for one in sent]
            if len(pending) >= 2 * threads:
                yield from self._next(done, pending)
        while pending:
            yield from self._next(done, pending)

    def _install(self, files: Mapping[str, Path]) -> Future:
        """Send the model's files, unless the cluster has them."""
        import dask

        content = {name: path.read_bytes() for name, path in sorted(files.items())}
        digest = hashlib.sha256()
        for name, data in content.items():
            digest.update(f"{name}\0{len(data)}\0".encode() + data)
        # Scattered data would be lost with the workers that hold it; the scheduler has this call repeated.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
            return self._client.submit(InstalledModel, content, key=f"edge-model-{digest.hexdigest()}")

    def _next(self, done: Queue[Any], pending: dict[str, list[LabeledInput]]) -> Iterator[Answer]:
        """Wait for a chunk, and yield its answers."""
        while True:
            try:
                future = done.get(timeout=_WORKER_TIMEOUT_S)
                break
            except Empty:
                if not self._has_workers():
                    raise self._lost() from None
        inputs = pending.pop(future.key)
        answers = self._result(future, inputs)
        future.release()
        yield from zip(inputs, answers, strict=True)

    def _has_workers(self) -> bool:
        try:
            return self._client.status == "running" and bool(self._client.nthreads())
        except OSError:  # the scheduler ended meanwhile
            return False

    def _result(self, future: Future, inputs: Sequence[LabeledInput]) -> list[ScoredInput | Unreadable]:
        from concurrent.futures import CancelledError

        from distributed import KilledWorker

        try:
            found: list[ScoredInput | Unreadable] | JsonObject = future.result()
        except KilledWorker as error:
            what = f"{error.allowed_failures + 1} workers died one after the other while they ran"
            where = f"{inputs[0][0]}" + (f" to {inputs[-1][0]}" if len(inputs) > 1 else "")
            hint = "see the worker's log; give each worker more memory (--memory-limit)"
            raise WorkerCrashedError(f"{what} {where}", hint) from None
        except (CancelledError, OSError):
            raise self._lost() from None
        if isinstance(found, dict):
            raise from_dict(found)
        return found

    def _lost(self) -> HostError:
        what = f"the cluster at {self._address} is lost: its scheduler or all its workers have ended"
        return HostError(what, "start it again; with --journal the same command continues where it was")


def portable_files(artifact: Artifact) -> Mapping[str, Path]:
    """Return what another machine needs to run the model, by its name in the artifact's folder.

    Raises InputError for a model that refers to files outside its folder.
    """
    if not artifact.is_bare:
        return {name: artifact.path / name for name in (MANIFEST, *artifact.manifest.files) if name != SELFCHECK}
    files = {path.relative_to(artifact.path).as_posix(): path for path in artifact.model_files()}
    tokenizer = tokenizer_beside(artifact.path)
    return files if tokenizer is None else {**files, TOKENIZER: tokenizer}


def _connect(address: str) -> Client:
    if find_spec("distributed") is None:
        raise EngineMissingError("--cluster needs Dask's distributed, which is not installed", install_hint("cluster"))
    scheme, separator, place = address.partition("://")
    if not separator or scheme not in _SCHEMES or not place:
        raise UsageError(f"'{address}' is not the address of a Dask scheduler", "write it as tcp://HOST:8786")
    from distributed import Client

    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # a lost connection is an error of ours
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other versions are compared by `_check_versions`
            return Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise HostError(f"no Dask scheduler answers at {address}: {error}", _START_HINT) from None


def _check_versions(found: Any) -> None:
    """Raise HostError for a scheduler or a worker that has no edge, or other versions than this machine."""
    here = found["client"]["packages"]
    for name, facts in {"the scheduler": found["scheduler"], **found["workers"]}.items():
        packages = facts["packages"]
        who = name if name == "the scheduler" else f"the worker {name}"
        if packages[_DISTRIBUTION] is None:
            raise HostError(f"{who} has no edge in its Python environment", _VERSIONS_HINT)
        for key in (_DISTRIBUTION, "distributed", "python"):
            if _comparable(key, packages[key]) != _comparable(key, here[key]):
                package = "edge" if key == _DISTRIBUTION else key
                what = f"{who} has {package} {packages[key]}; this machine has {here[key]}"
                raise HostError(what, _VERSIONS_HINT)


def _comparable(package: str, version: str | None) -> str:
    """Return what has to be equal of a version: Python's patch releases understand each other."""
    return ".".join((version or "").split(".")[: 2 if package == "python" else None])


def _chunks(inputs: Sequence[LabeledInput], threads: int) -> Iterator[Sequence[LabeledInput]]:
    """Divide the inputs into what is sent at once: not too many, not too large."""
    most = max(1, min(_CHUNK_INPUTS, len(inputs) // (_CHUNKS_EACH * threads)))
    chunk, size = list[LabeledInput](), 0
    for source, label in inputs:
        one = source.stat().st_size if isinstance(source, Path) and source.is_file() else 0
        if chunk and (len(chunk) == most or size + one > _CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append((source, label))
        size += one
    if chunk:
        yield chunk


def _read(source: Source, label: Any) -> SentInput:
    """Read an input and the file of its label. Raises InputError."""
    mask = _content(label.path) if isinstance(label, LabeledMask) else b""
    return SentInput(
        source=source, content=_content(source) if isinstance(source, Path) else b"", label=label, mask=mask
    )


def _content(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > _MAX_INPUT_BYTES:
            raise InputError(f"{path} has {size:,} bytes; at most {_MAX_INPUT_BYTES:,} are sent", "remove it")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}", "pass a file that can be read") from None
