"""LLaVA 1.5 sees pictures as in transformers with the llama.cpp that `make llama` corrects; others are refused."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from converters.gguf.clip_encoder import write_clip_encoder
from converters.gguf.folder_model import converter_environment
from converters.gguf.model_config import read_config
from converters.gguf.pictures import prove_pictures
from converters.pipeline.request import ConvertResult
from runtimes.errors import EngineError, InputError
from runtimes.llm.llama_cpp import server_program
from runtimes.llm.llama_cpp.picture_session import check_picture_encoder, open_with_pictures
from runtimes.llm.llama_cpp.server_program import Program, find_program
from runtimes.llm.session import LoadOptions, PromptPart, TextOptions
from tests.converters.gguf import vision_folders
from tests.converters.gguf.test_pictures import check_scores, convert, files_of, folder_of
from tests.edge.serve.conftest import Server

for _name in ("gguf", "llama_cpp", "transformers", "tokenizers", "PIL"):
    pytest.importorskip(_name)


@pytest.fixture(scope="module")
def corrected() -> Program:
    """The llama-server that `make llama` compiles."""
    program = find_program("llama_cpp")
    if not program.is_right_about_clip:
        assert not os.environ.get("CI"), "the llama.cpp of `make llama` is not corrected"
        pytest.skip("this llama.cpp puts CLIP's class token last; make llama compiles a corrected one")
    return program


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory, corrected: Program) -> tuple[Path, ConvertResult]:
    """A folder of LLaVA, converted to `artifact` next to it."""
    converter_environment().create()
    folder = vision_folders.llava(tmp_path_factory.mktemp("pictures") / "llava")
    return folder, convert(folder)


def test_llava_sees_a_picture_as_transformers_does(llava: tuple[Path, ConvertResult], corrected: Program) -> None:
    folder, result = llava
    assert result.proof["pictures"]["passed"]
    assert result.proof["pictures"]["metrics"]["snr_db"] > 50
    image = [json.loads((folder / "config.json").read_text())["image_token_index"]] * vision_folders.LLAVA_PATCHES
    check_scores(folder, *files_of(folder.with_name("artifact"), "llava"), image, corrected)


def test_the_uncorrected_llama_cpp_is_found_and_refused(
    llava: tuple[Path, ConvertResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = llava
    model, encoder = files_of(folder.with_name("artifact"), "llava")
    uncorrected = find_program("xllamacpp")
    with pytest.raises(InputError, match="class token after the patches"):
        check_picture_encoder(encoder, uncorrected)
    monkeypatch.setattr(Program, "is_right_about_clip", True)
    proof = prove_pictures(folder, read_config(folder), model, encoder, 50.0, uncorrected)
    assert not proof.passed
    assert proof.facts["metrics"]["snr_db"] < 20


def test_a_server_that_dies_is_named_with_its_end(llava: tuple[Path, ConvertResult], corrected: Program) -> None:
    model, encoder = files_of(llava[0].with_name("artifact"), "llava")
    options = LoadOptions(kv_type="f32", mmproj=str(encoder))
    with closing(open_with_pictures(str(model), options, corrected)) as session:
        children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        (server,) = [one for one in children if b"--mmproj" in Path(f"/proc/{one}/cmdline").read_bytes()]
        os.kill(int(server), signal.SIGABRT)
        with pytest.raises(EngineError, match=f"llama-server crashed with SIGABRT.*ran {re.escape(str(model))}"):
            session.next_scores([PromptPart("a")], 5)
        with pytest.raises(EngineError, match="crashed with SIGABRT"):
            list(session.generate([1], TextOptions(max_tokens=4)))


def test_edge_serve_answers_a_request_with_a_photograph(llava: tuple[Path, ConvertResult], tmp_path: Path) -> None:
    model, encoder = files_of(llava[0].with_name("artifact"), "llava")
    named = shutil.copy(encoder, tmp_path / "vision.gguf")
    words = [str(shutil.copy(model, tmp_path)), "--mmproj", str(named), "--json", "--port", "0", "--threads", "1"]
    server = Server(["-m", "edge", "serve", *words], tmp_path / "log")
    try:
        asked = [{"type": "text", "text": "Why is this picture so full of beauty?"}]
        answers = []
        for parts in (asked, [*asked, photograph((200, 30, 30))], [*asked, photograph((30, 30, 200))]):
            body = {"messages": [{"role": "user", "content": parts}], "temperature": 0, "max_tokens": 8}
            status, _, answer = server.post("/v1/chat/completions", {**body, "logprobs": True, "top_logprobs": 5})
            assert status == 200, answer
            answers.append(answer)
        counts = [answer["usage"]["prompt_tokens"] for answer in answers]
        assert counts[1] == counts[2]
        # The texts around a picture are tokenized one by one, and the second begins with SentencePiece's own space.
        assert 0 <= counts[1] - counts[0] - vision_folders.LLAVA_PATCHES <= 1
        assert len({json.dumps(answer["choices"][0]["logprobs"]) for answer in answers}) == 3
        mark = json.loads(server.get("/props")[2])["media_marker"]  # without any text after it, llama-server aborts
        media = photograph((30, 200, 30))["image_url"]["url"].partition(",")[2]
        prompt = {"prompt_string": f"look: {mark}", "multimodal_data": [media]}
        status, _, answer = server.post("/completion", {"prompt": prompt, "n_predict": 2})
        assert (status, server.metric("edge_engine_restarts")) == (400, 0), answer
        prompt["prompt_string"] += " red"
        assert server.post("/completion", {"prompt": prompt, "n_predict": 2})[0] == 200
    finally:
        server.stop()


def photograph(color: tuple[int, int, int]) -> dict[str, Any]:
    """A wide JPEG as a part of a message."""
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (120, 80), color).save(stream, "JPEG")
    url = f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
    return {"type": "image_url", "image_url": {"url": url}}


VARIANTS: dict[str, dict[str, Any]] = {
    "the last layer": {"vision_feature_layer": -1},
    "a layer counted from the first": {"vision_feature_layer": 1},
    "two layers": {"vision_feature_layer": [1, 2]},
    "a projector without biases": {"multimodal_projector_bias": False},
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.usefixtures("corrected")
def test_variants_of_llava_are_proven_too(variant: str, tmp_path: Path) -> None:
    converter_environment().create()
    result = convert(vision_folders.llava(tmp_path / "llava", **VARIANTS[variant]))
    assert result.proof["pictures"]["passed"]


def test_a_variant_that_llama_cpp_computes_otherwise_is_refused_by_name(tmp_path: Path) -> None:
    vision = {"model_type": "clip_vision_model"}
    folder = folder_of(
        tmp_path,
        architectures=["LlavaForConditionalGeneration"],
        vision_config=vision,
        vision_feature_select_strategy="full",
    )
    with pytest.raises(InputError, match="vision_feature_select_strategy is full"):
        write_clip_encoder(folder, read_config(folder), tmp_path / "m.gguf", "fp32", "m")


def test_the_correction_is_the_one_that_make_llama_applies() -> None:
    root = Path(__file__).parents[3]
    patch = Path(server_program.__file__).with_name(server_program.CLIP_PATCH)
    assert f"LLAMA_PATCH := {patch.relative_to(root).as_posix()}" in (root / "Makefile").read_text(encoding="utf-8")
    removed, added = (
        [line for line in patch.read_text(encoding="utf-8").splitlines() if line.startswith(sign) and line[1] == " "]
        for sign in "-+"
    )
    assert len(removed) == len(added) == 1
