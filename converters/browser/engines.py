"""The engines that run in a browser: where their files come from, and which of them a folder needs.

They are not in `runtimes/engines/`, because they do not run in a worker process. Their files come from npm packages,
which are pinned by version and sha512.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class NpmPackage:
    """A package of npm; `sha512` is the digest of its archive in base64, as in npm's lock files."""

    name: str
    version: str
    sha512: str

    @property
    def archive(self) -> str:
        """The name that `npm pack` gives the archive."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


@dataclass(frozen=True, kw_only=True)
class EngineFile:
    """A file of a package, and its name in the engine's folder.

    packed_bytes: Its size in the folder, where a name ending in `.bin` means packed with gzip.
    """

    package: NpmPackage
    path: str
    name: str
    packed_bytes: int

    @property
    def is_packed(self) -> bool:
        """Whether it is packed. The name is not `.gz`, because servers unpack such files, or label them wrongly."""
        return self.name.endswith(".bin")


@dataclass(frozen=True, kw_only=True)
class BrowserEngine:
    """An engine for browsers.

    id: Its name in manifests; also that of its module in `page/engines/`.
    title: Its name for people.
    model_format: The format that it opens.
    dtypes: The dtypes of inputs and outputs that it takes.
    builds: The files of each build: {"single" | "threads" | "webgpu" | ...: files}.
    default_builds: The builds that every folder has.
    license: The file in `licenses/`, and the SPDX name.
    """

    id: str
    title: str
    model_format: str
    dtypes: tuple[str, ...]
    builds: Mapping[str, tuple[EngineFile, ...]]
    default_builds: tuple[str, ...]
    license: tuple[str, str]

    @property
    def version(self) -> str:
        """The version of its package."""
        return next(iter(self.builds.values()))[0].package.version

    def files(self, builds: tuple[str, ...]) -> tuple[EngineFile, ...]:
        """Return the files of some builds, each once."""
        return tuple(dict.fromkeys(file for build in builds for file in self.builds[build]))

    def size(self, builds: tuple[str, ...]) -> int:
        """Return the size in bytes of some builds in the folder."""
        return sum(file.packed_bytes for file in self.files(builds))


_LITERT_JS = NpmPackage(
    name="@litertjs/core",
    version="2.5.3",
    sha512="PlGmbMOq9WitX7FO0jhbdJw9GthatsyuCQXjTt/wJZo0FLaw48q4tz8IwqgqCIkviYGr9OFDL1kCnN4nzWoyJQ==",
)
_WASM_UTILS = NpmPackage(
    name="@litertjs/wasm-utils",
    version="2.5.3",
    sha512="4fJiw6tBQnIs+0jH/OQ16nYOiSl8/+zZnn5h2ul8aTKHi05sVqZW580Tmk78pC2kT39A9OYBVdFawteZ/sI1kQ==",
)
_ORT_WEB = NpmPackage(
    name="onnxruntime-web",
    version="1.30.0",
    sha512="q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
)


def _litert_build(stem: str, script_bytes: int, wasm_bytes: int) -> tuple[EngineFile, ...]:
    return (
        EngineFile(package=_LITERT_JS, path="dist/index.js", name="core.js", packed_bytes=53482),
        EngineFile(package=_WASM_UTILS, path="dist/bundle.js", name="wasm-utils.js", packed_bytes=1496),
        EngineFile(package=_LITERT_JS, path=f"wasm/{stem}.js", name=f"{stem}.js", packed_bytes=script_bytes),
        EngineFile(package=_LITERT_JS, path=f"wasm/{stem}.wasm", name=f"{stem}.wasm.bin", packed_bytes=wasm_bytes),
    )


def _ort_build(script: str, script_bytes: int, wasm: str, glue_bytes: int, wasm_bytes: int) -> tuple[EngineFile, ...]:
    # `.mjs` becomes `.js`: some servers (nginx in Debian 12) do not know that .mjs is JavaScript.
    return (
        EngineFile(package=_ORT_WEB, path=f"dist/{script}.mjs", name=f"{script}.js", packed_bytes=script_bytes),
        EngineFile(package=_ORT_WEB, path=f"dist/{wasm}.mjs", name=f"{wasm}.js", packed_bytes=glue_bytes),
        EngineFile(package=_ORT_WEB, path=f"dist/{wasm}.wasm", name=f"{wasm}.wasm.bin", packed_bytes=wasm_bytes),
    )


LITERT_JS = BrowserEngine(
    id="litert_js",
    title="LiteRT.js",
    model_format="tflite",
    dtypes=("float32", "int32", "uint8"),
    builds={
        "single": _litert_build("litert_wasm_internal", 273035, 2844147),
        "threads": _litert_build("litert_wasm_threaded_internal", 317475, 2864090),
        "webgpu": _litert_build("litert_wasm_jspi_internal", 293543, 2917170),
        "compat": _litert_build("litert_wasm_compat_internal", 273246, 2833092),  # without relaxed SIMD
    },
    default_builds=("single", "threads", "webgpu"),
    license=("apache-2.0.txt", "Apache-2.0"),
)
ORT_WEB = BrowserEngine(
    id="ort_web",
    title="ONNX Runtime Web",
    model_format="onnx",
    dtypes=(
        *("float32", "float64", "int8", "int16", "int32", "int64"),
        *("uint8", "uint16", "uint32", "uint64", "bool"),
    ),
    builds={
        "wasm": _ort_build("ort.wasm.min", 50126, "ort-wasm-simd-threaded", 24381, 3668761),  # 1 thread or several
        "webgpu": _ort_build("ort.jspi.min", 66511, "ort-wasm-simd-threaded.jspi", 50918, 4131501),
    },
    default_builds=("wasm",),
    license=("onnxruntime.txt", "MIT"),
)
ENGINES = {engine.id: engine for engine in (LITERT_JS, ORT_WEB)}
