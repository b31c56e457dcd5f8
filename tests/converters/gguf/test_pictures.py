"""Picture encoders answer as in transformers; those that llama.cpp computes wrongly are left out, with the reason."""

from __future__ import annotations

import io
import json
import struct
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.gguf import encoder_name
from converters.gguf.base import GgufOptions
from converters.gguf.folder_model import converter_environment
from converters.gguf.model_config import read_config
from converters.gguf.pictures import _compare, prove_pictures, seeded_picture, takes_pictures, why_not
from converters.gguf.staging import stage
from converters.pipeline.language_model import convert_text
from converters.pipeline.request import ConvertResult, LlmConvertRequest
from runtimes.errors import InputError
from runtimes.llm.llama_cpp.picture_session import open_with_pictures
from runtimes.llm.llama_cpp.server_program import Program, find_program
from runtimes.llm.session import LoadOptions, PromptPart, TextOptions
from tests.converters.gguf import vision_folders

for _name in ("gguf", "llama_cpp", "transformers", "tokenizers", "PIL"):
    pytest.importorskip(_name)


def folder_of(place: Path, **config: Any) -> Path:
    place.mkdir(exist_ok=True)
    (place / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (place / "preprocessor_config.json").write_text("{}", encoding="utf-8")
    return place


UNCORRECTED = Program((sys.executable,), is_prebuilt=True)


def test_the_clip_of_llava_is_left_out_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vision = {"model_type": "clip_vision_model", "image_size": 336, "patch_size": 14}
    folder = folder_of(tmp_path, architectures=["LlavaForConditionalGeneration"], vision_config=vision)
    config = read_config(folder)
    assert takes_pictures(config)
    monkeypatch.setattr("converters.gguf.pictures.find_program", lambda _runtime: UNCORRECTED)
    assert "class token after the patches" in str(why_not(folder, config))
    assert "make llama" in str(why_not(folder, config))


def test_a_folder_that_does_not_say_how_a_picture_becomes_an_input_is_left_out(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, vision_config={"model_type": "siglip_vision_model"})
    (folder / "preprocessor_config.json").unlink()
    assert "preprocessor_config.json" in str(why_not(folder, read_config(folder)))


def test_a_model_without_pictures_has_no_encoder(tmp_path: Path) -> None:
    assert not takes_pictures(read_config(folder_of(tmp_path, architectures=["LlamaForCausalLM"])))


def test_the_staged_folder_says_how_a_picture_becomes_an_input_and_names_no_code(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", architectures=["Gemma3ForConditionalGeneration"])
    given = {"image_mean": [0.5] * 3, "auto_map": {"AutoImageProcessor": "evil.Processor"}}
    (folder / "preprocessor_config.json").write_text(json.dumps(given), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    staged = stage(folder, tmp_path / "staged")
    assert json.loads((staged / "preprocessor_config.json").read_text()) == {"image_mean": [0.5] * 3}


def test_scores_that_do_not_depend_on_the_picture_prove_nothing() -> None:
    generator = np.random.default_rng(0)
    text, noise = generator.normal(size=(2, 500)).astype(np.float32)
    with pytest.raises(InputError, match="does not depend on the picture"):
        _compare([text, text], [text, text])
    seen, blind = _compare([text, text + noise], [text, text + noise]), _compare([text, text + noise], [text, text])
    assert seen["change_snr_db"] > 60
    assert blind["change_snr_db"] < 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    converter_environment().create()
    return vision_folders.gemma_3(tmp_path_factory.mktemp("pictures") / "gemma-3")


@pytest.fixture(scope="module")
def converted(folder: Path) -> tuple[ConvertResult, Path]:
    return convert(folder), folder.with_name("artifact")


def convert(folder: Path) -> ConvertResult:
    """Convert to the folder `artifact` next to it."""
    out = folder.with_name("artifact")
    out.mkdir()
    options = GgufOptions(precision="fp32")
    request = LlmConvertRequest(
        source=folder, kind="hf", options=options, out=out, scratch=folder.with_name("steps"), kept=None
    )
    return convert_text(request, lambda _report: None)


def files_of(out: Path, name: str = "gemma-3") -> tuple[Path, Path]:
    return out / f"{name}.gguf", out / encoder_name(name)


def scores_of_transformers(folder: Path, picture: bytes, image: list[int], before: list[int], after: list[int]) -> Any:
    """Computed by hand from the picture's pixels: nothing of this is in the proof. `image`: the picture's tokens."""
    import torch
    import transformers
    from PIL import Image

    config = json.loads((folder / "config.json").read_text())
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"), np.float32) / 255
    pixels = (pixels - np.float32([0.5, 0.45, 0.4])) / np.float32([0.5, 0.4, 0.3])
    ids = torch.tensor([[*before, *image, *after]])
    kinds = {"token_type_ids": (ids == config["image_token_index"]).long()} if config["model_type"] == "gemma3" else {}
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        logits = model(
            input_ids=ids,
            pixel_values=torch.from_numpy(pixels.transpose(2, 0, 1)[None].copy()),
            **kinds,
        ).logits[0, -1]
    return torch.log_softmax(logits, -1).numpy()


def check_scores(folder: Path, model: Path, encoder: Path, image: list[int], program: Program) -> None:
    """The scores after a picture are those of transformers, and depend on the picture."""
    picture, text = seeded_picture(vision_folders.SIDE, 7), "What a beautiful sight"
    options = LoadOptions(kv_type="f32", mmproj=str(encoder))
    with closing(open_with_pictures(str(model), options, program)) as session:
        begin, after = session.tokenize("", begin=True), session.tokenize(text)
        scores, length = session.next_scores([PromptPart(picture=picture), PromptPart(text)], after[0])
        assert session.picture_tokens(picture) == len(image)
        assert length == len(begin) + len(image) + len(after)
        answers = [
            [token.text for token in session.generate_parts(parts, length, TextOptions(max_tokens=4, temperature=0.0))]
            for parts in ([PromptPart(picture=picture), PromptPart(text)], [PromptPart(text)])
        ]
        assert answers[0] != answers[1]
        other = session.next_scores(
            [PromptPart(picture=seeded_picture(vision_folders.SIDE, 8)), PromptPart(text)], after[0]
        )[0]
        assert np.abs(scores - other).max() > 0.1
    expected = scores_of_transformers(folder, picture, image, begin, after)
    assert np.abs(scores[: len(expected)] - expected).max() < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["llama_cpp", "xllamacpp"])
def test_it_sees_a_picture_as_transformers_does(
    runtime: str, folder: Path, converted: tuple[ConvertResult, Path]
) -> None:
    result, out = converted
    model, encoder = files_of(out)
    assert encoder.name in result.files
    assert result.proof["pictures"]["passed"]
    assert result.proof["pictures"]["metrics"]["snr_db"] > 55
    config = json.loads((folder / "config.json").read_text())
    image = [config["boi_token_index"], *[config["image_token_index"]] * vision_folders.PATCHES]
    check_scores(folder, model, encoder, [*image, config["eoi_token_index"]], find_program(runtime))


@pytest.mark.slow
def test_a_planted_fault_in_the_encoder_is_found(folder: Path, converted: tuple[ConvertResult, Path]) -> None:
    model, encoder = files_of(converted[1])
    content, right = encoder.read_bytes(), struct.pack("<3f", 0.5, 0.45, 0.4)
    assert content.count(right) == 1
    wrong = encoder.with_name("wrong.gguf")
    wrong.write_bytes(content.replace(right, struct.pack("<3f", 0.5, 0.5, 0.4)))  # the mean of the pixels
    proof = prove_pictures(folder, read_config(folder), model, wrong, limit=50.0)
    assert not proof.passed
    assert "dB" in proof.message


@pytest.mark.slow
def test_a_model_that_is_only_known_by_its_text_part_converts(tmp_path: Path) -> None:
    converter_environment().create()
    folder = vision_folders.smolvlm(tmp_path / "smolvlm")
    assert json.loads((folder / "config.json").read_text())["text_config"].get("architectures") is None
    result = convert(folder)
    assert result.proof["passed"]
    assert any("no preprocessor_config.json" in note for note in result.notes)


@pytest.mark.slow
def test_qwen_sees_pictures_with_positions_in_three_dimensions(tmp_path: Path) -> None:
    converter_environment().create()
    result = convert(vision_folders.qwen2_vl(tmp_path / "qwen2-vl"))
    assert result.proof["pictures"]["passed"], result.notes
    assert result.proof["pictures"]["metrics"]["snr_db"] > 50
