"""llama.cpp through llama-cpp-python: GGUF language models on CPUs, optionally distributed over RPC workers."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Mapping

from runtimes.errors import EngineError, HostError, InputError, UsageError
from runtimes.host import performance_cores, usable_cores
from runtimes.llm.llama_cpp import library as llama
from runtimes.llm.llama_cpp.memory import LOGIT_ROWS, UBATCH, context_size, memory_mode, trained_context
from runtimes.llm.llama_cpp.picture_session import open_with_pictures
from runtimes.llm.llama_cpp.server_program import find_program
from runtimes.llm.llama_cpp.session import LlamaSession
from runtimes.llm.session import LlmFacts, LoadOptions, TextEngine, TextSession
from runtimes.model_files.gguf import ArrayInfo, GgufFile, read_gguf
from runtimes.registry import distribution_version, is_installed, missing
from runtimes.session import check_settings

_READ, _MAP = 0, 1  # llama_load_mode
_KV_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 8}  # ggml_type
_LONGEST_ENTRY = 1000  # characters; longer metadata entries are dropped
_PLAIN = {"f32": "fp32", "f16": "fp16", "bf16": "bf16"}
# general.file_type → its name, lower case. Source: enum llama_ftype in llama.h.
_FILE_TYPES = {
    2: "q4_0",
    3: "q4_1",
    7: "q8_0",
    8: "q5_0",
    9: "q5_1",
    10: "q2_k",
    11: "q3_k_s",
    12: "q3_k_m",
    13: "q3_k_l",
    14: "q4_k_s",
    15: "q4_k_m",
    16: "q5_k_s",
    17: "q5_k_m",
    18: "q6_k",
    25: "iq4_nl",
    30: "iq4_xs",
}


class Adapter(TextEngine):
    """The main engine for language models, compiled for this machine's CPU at installation."""

    id = "llama_cpp"
    formats: tuple[str, ...] = ("gguf",)
    requires = "llama_cpp"
    settings: Mapping[str, str] = {
        "flash_attention": "auto (where the engine supports it), on or off",
        "repack": "on (off where the build has AMX) lays weights out for the CPU while loading; off keeps the file's"
        " layout, slower",
    }

    def version(self) -> str:
        """Return the version of llama-cpp-python. Raises EngineMissingError if it is not installed."""
        if not is_installed(self):
            raise missing(self)
        return distribution_version("llama-cpp-python")

    def open_text(self, model: str, options: LoadOptions) -> TextSession:
        """See `runtimes.llm.session.TextEngine`."""
        if not is_installed(self):
            raise missing(self)
        check_settings(options.settings, self.settings, self.id)
        if options.slots > 1 and options.mmproj is None:
            raise UsageError("llama_cpp continues one text at a time", "use slots=1, or edge serve for several clients")
        if options.mmproj is not None:
            return open_with_pictures(model, options, find_program(self.id))
        path = Path(model)
        file = read_gguf(path)
        context = context_size(file, path, options)
        library = llama.load()
        options = avoid_amx(library, options)
        loaded = _load_model(library, path, file, options)
        try:
            created = _create_context(library, loaded, context, options)
            _apply_adapters(library, loaded, created, options)
        except BaseException:
            library.llama_model_free(loaded)
            raise
        return LlamaSession(library, loaded, created, _facts(library, loaded, created, file, path, context, options))


def quantization(file: GgufFile) -> str:
    """Return the precision of most weights. `general.file_type` is used only if it agrees with them."""
    dominant = next(iter(file.bytes_by_type()), "unknown").lower()
    kind = file.metadata.get("general.file_type")
    claimed = _FILE_TYPES.get(kind) if isinstance(kind, int) else None
    return claimed if claimed and claimed.startswith(dominant) else _PLAIN.get(dominant, dominant)


def avoid_amx(library: Any, options: LoadOptions) -> LoadOptions:
    """Keep the file's weight layout by default on builds that would use AMX.

    GCC drops the tile configuration that llama.cpp has written, and the first matrix product crashes the process
    (github.com/ggml-org/llama.cpp/pull/26954, open in August 2026). `make llama` compiles without AMX.
    """
    if "repack" in options.settings or b"AMX_INT8 = 1" not in library.llama_print_system_info():
        return options
    return replace(options, settings={**options.settings, "repack": "off"})


def _load_model(library: Any, path: Path, file: GgufFile, options: LoadOptions) -> Any:
    parameters = library.llama_model_default_params()
    parameters.load_mode = _MAP if memory_mode(file, options) == "map" else _READ
    parameters.use_extra_bufts = options.settings.get("repack", "on") == "on"
    parameters.n_gpu_layers = 0
    alive: list[Any] = []  # must live until the model is loaded
    if options.workers:
        from runtimes.llm.llama_cpp.rpc import distribute_layers

        alive.append(distribute_layers(library, parameters, options.workers, file.integer("block_count") or 0))
    loaded = library.llama_model_load_from_file(str(path).encode(), parameters)
    if not loaded:
        hint = "a newer llama-cpp-python may support this model; edge inspect shows whether the file itself can be read"
        raise InputError(f"llama_cpp cannot open {path}{llama.last_error()}", hint)
    return loaded


def _create_context(library: Any, model: Any, context: int, options: LoadOptions) -> Any:
    threads = options.threads or min(performance_cores(), usable_cores())
    parameters = library.llama_context_default_params()
    parameters.n_ctx = context
    parameters.n_batch = parameters.n_ubatch = UBATCH
    parameters.n_outputs_max = parameters.n_outputs_max_per_seq = LOGIT_ROWS
    parameters.n_threads = threads
    parameters.n_threads_batch = options.batch_threads or threads
    parameters.type_k = parameters.type_v = _KV_TYPES[options.kv_type]
    parameters.flash_attn_type = {"auto": -1, "off": 0, "on": 1}[_flash(options)]
    created = library.llama_init_from_model(model, parameters)
    if not created:
        raise HostError(
            f"llama_cpp cannot create a context of {context} tokens{llama.last_error()}", "use a shorter --context"
        )
    return created


def _flash(options: LoadOptions) -> str:
    word = options.settings.get("flash_attention", "auto")
    if word not in ("auto", "on", "off"):
        raise UsageError(f"llama_cpp: flash_attention is '{word}'", "choose one of: auto, on, off")
    return word


def _apply_adapters(library: Any, model: Any, context: Any, options: LoadOptions) -> None:
    if not options.adapters:
        return
    loaded, scales = [], []
    for path, strength in options.adapters.items():
        read_gguf(Path(path))
        adapter = library.llama_adapter_lora_init(model, str(path).encode())
        if not adapter:
            hint = "choose a LoRA adapter in GGUF that was trained for this model"
            raise InputError(f"llama_cpp cannot apply the adapter {path}{llama.last_error()}", hint)
        loaded.append(adapter)
        scales.append(strength)
    array = (library.llama_adapter_lora_p_ctypes * len(loaded))(*loaded)
    if library.llama_set_adapters_lora(context, array, len(loaded), (ctypes.c_float * len(scales))(*scales)):
        raise EngineError("llama_cpp cannot apply the adapters together", "apply them one at a time")


def _facts(
    library: Any, model: Any, context: Any, file: GgufFile, path: Path, size: int, options: LoadOptions
) -> LlmFacts:
    vocabulary = library.llama_model_get_vocab(model)
    count = int(library.llama_vocab_n_tokens(vocabulary))
    bos, eos = (_token(value) for value in (library.llama_vocab_bos(vocabulary), library.llama_vocab_eos(vocabulary)))
    return LlmFacts(
        name=file.text("general.name") or path.stem,
        architecture=file.architecture,
        quantization=quantization(file),
        parameters=file.parameters,
        bytes=file.size,
        vocabulary=count,
        context=size,
        trained_context=trained_context(file),
        slots=1,
        bos=bos,
        eos=eos,
        ends=tuple(token for token in range(count) if library.llama_vocab_is_eog(vocabulary, token)),
        adds_bos=bool(library.llama_vocab_get_add_bos(vocabulary)),
        template=file.text("tokenizer.chat_template"),
        threads=int(library.llama_n_threads(context)),
        batch_threads=int(library.llama_n_threads_batch(context)),
        memory=memory_mode(file, options),
        system_info=library.llama_print_system_info().decode("utf-8", "replace"),
        bos_text=_text(library, vocabulary, bos),
        eos_text=_text(library, vocabulary, eos),
        metadata=_short(file),
    )


def _short(file: GgufFile) -> dict[str, str]:
    plain = {key: str(value) for key, value in file.metadata.items() if not isinstance(value, ArrayInfo)}
    return {key: value for key, value in plain.items() if len(value) <= _LONGEST_ENTRY}


def _token(value: int) -> int | None:
    return int(value) if value >= 0 else None


def _text(library: Any, vocabulary: Any, token: int | None) -> str:
    with suppress(AttributeError):
        return library.llama_vocab_get_text(vocabulary, token).decode("utf-8", "replace") if token is not None else ""
    return ""
