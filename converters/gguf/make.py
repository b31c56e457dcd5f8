"""From a language model to a GGUF file in the precision asked for."""

from __future__ import annotations

from pathlib import Path

from converters.gguf.model import LanguageModel
from converters.gguf.template import check_template
from converters.gguf.writer import OnTensor, write_model
from converters.steps import Made, StepOptions
from runtimes.gguf_file import read_gguf
from runtimes.llama.quantize import histogram, quantize_file

PLAIN = ("fp16", "fp32")
PRECISIONS = ("fp16", "fp32", "q8_0", "q4_0", "q4_k_m")
REQUIRES = ("gguf",)


def make_gguf(
    model: LanguageModel, out: Path, options: StepOptions, on_tensor: OnTensor = lambda _done, _total: None
) -> Made:
    """Write `out/<name>.gguf`. What is quantised is written in half precision first and handed to llama.cpp."""
    if model.vocabulary.template:
        special = {name: model.vocabulary.tokens[number] for name, number in model.vocabulary.special.items()}
        check_template(model.vocabulary.template, model.name, special.get("bos", ""), special.get("eos", ""))
    path = out / f"{model.name}.gguf"
    if options.precision in PLAIN:
        write_model(model, path, options.precision == "fp16", on_tensor)
    else:
        plain = Path(options.scratch or out) / f".{model.name}.fp16.gguf"
        plain.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_model(model, plain, True, on_tensor)
            quantize_file(plain, path, options.precision)
        finally:
            plain.unlink(missing_ok=True)
    file = read_gguf(path)
    facts = {
        "architecture": model.network.architecture,
        "parameters": file.parameters,
        "bits_per_weight": round(file.bits_per_weight, 3),
        "tensor_types": histogram(file),
    }
    return Made(path, facts=facts, notes=(*model.notes, *_fallbacks(options.precision, histogram(file))))


def _fallbacks(precision: str, types: dict[str, int]) -> tuple[str, ...]:
    """What to read where the file is not what its name says."""
    if precision in PLAIN:
        return ()
    told = ", ".join(f"{count} {kind}" for kind, count in types.items())
    return (f"the tensors became {told}",)
