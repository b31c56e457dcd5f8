"""Verify the picture encoder (mmproj) of a language model: compare its answers to pictures with those of transformers.

Both programs get the same seeded pictures, of the encoder's own size, between the same texts. The scores of all tokens
after them are compared, and also their change by another picture, because a text alone has scores too. Pictures of
other sizes are resized by llama.cpp, which this does not compare.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.gguf.clip_encoder import is_clip
from converters.gguf.model_config import ModelConfig
from converters.gguf.reference import fits_in_memory, has_transformers
from converters.gguf.weights import weight_files
from converters.library_calls import loading
from runtimes.arrays import Array
from runtimes.errors import EngineMissingError, InputError, ProofError
from runtimes.llm.llama_cpp.picture_session import PictureSession, open_with_pictures
from runtimes.llm.llama_cpp.server_program import CLIP_HINT, CLIP_REASON, Program, find_program
from runtimes.llm.session import LoadOptions, PromptPart
from runtimes.verification.metrics import compare, meets

if TYPE_CHECKING:
    from runtimes.artifact.json_fields import JsonObject

# Before and after a picture. llama.cpp 0c1e570 aborts if nothing follows the picture, nor a token that ends it.
_TEXTS = (("", "Why is this picture so full of beauty?"), ("Look at ", " and"), ("1, 2,", " 3"))
_LEAST_CHANGE = 1e-3  # of the scores, by another picture: a smaller change cannot be distinguished from rounding
_CHANGE_DB = 10.0  # a change has less signal than the scores by this much
_DEFAULT_SIDE = 224  # pixels; of encoders that take any size
_MAX_SIDE = 1024
_IMPOSSIBLE = -80.0  # log-probability; smaller ones vanish in single precision
# What marks the place of a picture in a text, as an attribute of the processor in transformers.
_PLACES = {"gemma3": "boi_token"}


def takes_pictures(config: ModelConfig) -> bool:
    """Whether a folder's model has a picture encoder."""
    return isinstance(config.get("vision_config"), dict)


def why_not(folder: Path, config: ModelConfig) -> str | None:
    """Return why the pictures of a folder cannot be converted and proven here; None if they can."""
    if not (folder / "preprocessor_config.json").is_file() and not (folder / "processor_config.json").is_file():
        return "the folder has no preprocessor_config.json, which says how a picture becomes an input"
    if not has_transformers() or find_spec("PIL") is None:
        return "the proof of pictures needs transformers and Pillow: pip install 'edgeproof[gguf-proof,pictures]'"
    try:
        program = find_program(None)
    except EngineMissingError as error:
        return f"the proof of pictures needs llama-server: {error.hint}"
    if is_clip(config) and not program.is_right_about_clip:
        return f"its picture encoder is CLIP, and {CLIP_REASON}; {CLIP_HINT}"
    if not fits_in_memory(sum(file.stat().st_size for file in weight_files(folder)) // 2):
        return "the folder is too large to be compared with transformers on this machine"
    return None


@dataclass(frozen=True, kw_only=True)
class PictureProof:
    """The result of the comparison.

    passed: Whether llama.cpp answers like transformers.
    message: Why not.
    facts: The manifest's entry.
    """

    passed: bool
    message: str
    facts: JsonObject

    def error(self, folder: str) -> ProofError:
        """Return the error of a failed proof; `folder` contains the result."""
        hint = f"--no-pictures converts the language model alone; the result is in {folder}"
        return ProofError(f"the result does not process pictures like its source: {self.message}", hint)


def prove_pictures(
    folder: Path, config: ModelConfig, model: Path, encoder: Path, limit: float, program: Program | None = None
) -> PictureProof:
    """Compare `model` with the picture encoder `encoder` with the folder from which both were converted.

    limit: The lowest signal-to-noise ratio of the scores, in dB.
    """
    side = _side(config)
    shown = [(texts, seeded_picture(side, 2 * index + which)) for index, texts in enumerate(_TEXTS) for which in (0, 1)]
    options = LoadOptions(context=None, kv_type="f32", mmproj=str(encoder))
    with open_with_pictures(str(model), options, program or find_program(None), ("--flash-attn", "off")) as session:
        cases = [_case(session, texts, picture) for texts, picture in shown]
    expected = transformers_picture_scores(folder, config, cases)
    wrong = [case for case, (_, length) in zip(cases, expected, strict=True) if case.length != length]
    if wrong:
        length = next(length for case, (_, length) in zip(cases, expected, strict=True) if case is wrong[0])
        what = f"a text with a picture has {wrong[0].length} tokens, and {length} in transformers"
        return PictureProof(passed=False, message=what, facts={"passed": False, "samples": len(cases)})
    metrics = _compare([scores for scores, _ in expected], [case.scores for case in cases])
    least = max(limit - _CHANGE_DB, 0.0)
    failures = [
        f"{what} {metrics[name]:.1f} dB, not {wanted:g}"
        for name, wanted, what in (
            ("snr_db", limit, "scores after a picture are"),
            ("change_snr_db", least, "what another picture changes is"),
        )
        if not meets("snr_db", metrics[name], wanted)
    ]
    facts: JsonObject = {
        "passed": not failures,
        "metrics": {name: float(f"{value:.6g}") for name, value in metrics.items()},
        "limits": {"snr_db": limit, "change_snr_db": least},
        "samples": len(cases),
        "inputs": f"seeded pictures of {side} x {side} pixels",
        "reference": "transformers",
    }
    return PictureProof(passed=not failures, message="; ".join(failures), facts=facts)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A picture between two texts, and llama.cpp's answer.

    before, after: The texts as token ids.
    scores: The log-probabilities after them, float32 [vocabulary].
    length: The prompt's length in tokens.
    """

    before: list[int]
    after: list[int]
    picture: bytes
    scores: Array
    length: int


def _case(session: PictureSession, texts: tuple[str, str], picture: bytes) -> Case:
    before, after = texts
    forced = session.tokenize("a")[-1]
    parts = [PromptPart(before), PromptPart(picture=picture), PromptPart(after)]
    scores, length = session.next_scores([part for part in parts if part.text or part.picture], forced)
    tokens = session.tokenize(before, begin=True), session.tokenize(after)
    return Case(before=tokens[0], after=tokens[1], picture=picture, scores=scores, length=length)


def seeded_picture(side: int, seed: int) -> bytes:
    """Return a picture (PNG) of coarse colors and fine noise, which differs in every patch."""
    from PIL import Image

    generator = np.random.default_rng(seed)
    coarse = generator.uniform(0, 255, (4, 4, 3)).repeat(-(-side // 4), 0).repeat(-(-side // 4), 1)[:side, :side]
    pixels = np.clip(coarse + generator.normal(0, 30, coarse.shape), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def transformers_picture_scores(folder: Path, config: ModelConfig, cases: Sequence[Case]) -> list[tuple[Array, int]]:
    """Return transformers' scores after each case, and the length of its prompt; no code of the folder is run."""
    with loading(folder, "a model that sees pictures"):
        import torch
        import transformers
        from PIL import Image

        transformers.utils.logging.disable_progress_bar()
        processor = _load_processor(folder)
        model: Any = transformers.AutoModelForImageTextToText.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, dtype=torch.float32
        )
        model.eval()
        place = _place(processor, config)
        found = []
        for case in cases:
            inputs = dict(processor(images=[Image.open(io.BytesIO(case.picture))], text=[place], return_tensors="pt"))
            image = config.get("image_token_id", config.get("image_token_index"))
            ids = [*case.before, *_span(inputs.pop("input_ids")[0].tolist(), image, processor.tokenizer), *case.after]
            inputs.pop("attention_mask", None)
            tokens = torch.tensor([ids])
            for kind in ("token_type_ids", "mm_token_type_ids"):  # 1 where a picture is
                if kind in inputs:
                    inputs[kind] = (tokens == image).long()
            with torch.no_grad():
                found.append((model(input_ids=tokens, **inputs).logits[0, -1].float().numpy(), len(ids)))
        return found


def _load_processor(folder: Path) -> Any:
    """Load a folder's processor, if torchvision is missing without the part for videos, which needs it."""
    import transformers

    mixin: Any = transformers.ProcessorMixin
    original = mixin.get_attributes

    def without_videos(kind: Any) -> list[str]:
        return [name for name in original.__func__(kind) if name != "video_processor"]

    if find_spec("torchvision") is None:
        mixin.get_attributes = classmethod(without_videos)
    try:
        return transformers.AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    finally:
        mixin.get_attributes = original


def _place(processor: Any, config: ModelConfig) -> str:
    """Return the text that marks the place of a picture, with the tokens around it that llama.cpp adds by itself."""
    mark = str(getattr(processor, _PLACES.get(str(config.get("model_type")), "image_token")))
    around = [config.get(f"vision_{end}_token_id") for end in ("start", "end")]  # of Qwen-VL
    if None in around:
        return mark
    start, end = processor.tokenizer.convert_ids_to_tokens(around)
    return f"{start}{mark}{end}"


def _span(ids: list[int], image: int, tokenizer: Any) -> list[int]:
    """Return the picture's tokens, with the special ones directly around them, but not those of a text's ends."""
    places = [place for place, token in enumerate(ids) if token == image]
    around = set(tokenizer.added_tokens_decoder) - {tokenizer.bos_token_id, tokenizer.eos_token_id}
    first, last = places[0], places[-1]
    while first > 0 and ids[first - 1] in around:
        first -= 1
    while last + 1 < len(ids) and ids[last + 1] in around:
        last += 1
    return ids[first : last + 1]


def _compare(expected: list[Array], given: list[Array]) -> dict[str, float]:
    """Compare scores, and the differences between those of two pictures with the same text.

    Up to a constant, because one side has logits and the other log-probabilities. Raises InputError if the source
    answers the same whatever a picture shows.
    """
    rows: list[tuple[Array, Array]] = []
    changes: list[tuple[Array, Array]] = []
    for place in range(0, len(expected), 2):
        first, second = given[place][: len(expected[place])], given[place + 1][: len(expected[place])]
        possible = (first > _IMPOSSIBLE) & (second > _IMPOSSIBLE)
        wanted = [_center(scores[possible]) for scores in expected[place : place + 2]]
        found = [_center(scores[possible]) for scores in (first, second)]
        rows += zip(wanted, found, strict=True)
        changes.append((wanted[1] - wanted[0], found[1] - found[0]))
    scores, change = _join(rows), _join(changes)
    if np.linalg.norm(change[0]) < _LEAST_CHANGE * np.linalg.norm(scores[0]):
        what = "the source's answer does not depend on the picture, so the picture encoders cannot be compared"
        raise InputError(what, "--no-pictures leaves the picture encoder out")
    return {**compare(*scores), "change_snr_db": compare(*change)["snr_db"]}


def _center(scores: Array) -> Array:
    found: Array = scores - scores.mean()
    return found


def _join(pairs: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    return np.concatenate([one for one, _ in pairs])[None], np.concatenate([other for _, other in pairs])[None]


def _side(config: ModelConfig) -> int:
    vision = config.get("vision_config")
    size = vision.get("image_size") if isinstance(vision, dict) else None
    return size if isinstance(size, int) and 0 < size <= _MAX_SIDE else _DEFAULT_SIDE
