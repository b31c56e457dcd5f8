"""Write a language model as a GGUF file in the requested precision."""

from __future__ import annotations

from pathlib import Path

from converters.base import ConversionOutput
from converters.gguf import PLAIN
from converters.gguf.chat_template import render_chat
from converters.gguf.model_parts import OnTensor, TextModel
from converters.options import ConvertOptions
from runtimes.llm.llama_cpp.quantize import count_types, quantize_file
from runtimes.model_files.gguf import read_gguf


def make_gguf(
    model: TextModel, out: Path, options: ConvertOptions, on_tensor: OnTensor = lambda _done, _total: None
) -> ConversionOutput:
    """Write `out/<name>.gguf`. Quantized files are written in half precision first, and quantized by llama.cpp."""
    tokenizer = model.tokenizer
    if tokenizer.template:
        render_chat(tokenizer.template, model.name, tokenizer.bos, tokenizer.eos)
    path = out / f"{model.name}.gguf"
    if options.precision in PLAIN:
        model.write(path, options.precision, on_tensor)
    else:
        plain = Path(options.scratch or out) / f".{model.name}.fp16.gguf"
        plain.parent.mkdir(parents=True, exist_ok=True)
        try:
            model.write(plain, "fp16", on_tensor)
            quantize_file(plain, path, options.precision)
        finally:
            plain.unlink(missing_ok=True)
    file = read_gguf(path)
    facts = {
        "architecture": file.architecture,
        **model.facts(),
        "parameters": file.parameters,
        "bits_per_weight": round(file.bits_per_weight, 3),
        "tensor_types": count_types(file),
    }
    notes = (*model.notes, *_fallbacks(options.precision, count_types(file)))
    return ConversionOutput(model=path, facts=facts, notes=notes)


def _fallbacks(precision: str, types: dict[str, int]) -> tuple[str, ...]:
    """Return a note with the types of the tensors of a quantized file."""
    if precision in PLAIN:
        return ()
    counts = ", ".join(f"{count} {kind}" for kind, count in types.items())
    return (f"the types of the tensors are {counts}",)
