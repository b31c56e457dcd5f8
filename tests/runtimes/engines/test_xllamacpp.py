"""The prebuilt llama.cpp: how its server receives the requested settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtimes.engines.xllamacpp import _parameters
from runtimes.llm.session import LoadOptions

library = pytest.importorskip("xllamacpp")


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0", "q4_0"])
def test_the_type_of_the_cache_reaches_the_engine(kind):
    options = LoadOptions(context=256, kv_type=kind)
    parameters = _parameters(library, Path("a.gguf"), options, context=256, threads=1, key="key", memory="map")
    wanted = getattr(library.ggml_type, f"GGML_TYPE_{kind.upper()}")
    assert parameters.cache_type_k == parameters.cache_type_v == wanted
