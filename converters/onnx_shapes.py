"""What an ONNX file takes, with its batch fixed; for converters that run elsewhere and are told the shapes."""

from __future__ import annotations

from pathlib import Path

from converters.onnx_tidy import opset_of
from converters.quiet import loading
from runtimes.errors import InputError


def fixed_shapes(model: Path, batch: int, newest_opset: int) -> dict[str, list[int]]:
    """{input name: its shape, a free first dimension set to `batch`}.

    InputError for a broken file, another free dimension, or an opset beyond `newest_opset`.
    """
    with loading(model, "ONNX"):
        import onnx

        proto = onnx.load(model, load_external_data=False)
        found = opset_of(proto)
        constants = {tensor.name for tensor in proto.graph.initializer}  # old files list them as inputs too
        inputs = {value.name: value for value in proto.graph.input if value.name not in constants}
        shapes = {name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for name, value in inputs.items()}
    if found > newest_opset:
        hint = f"export it with opset {newest_opset} or lower; a model in another format is converted so here"
        raise InputError(f"{model} has opset {found}, and {newest_opset} is the newest that this converter reads", hint)
    for name, shape in shapes.items():
        if 0 in shape[1:]:
            raise InputError(f"{model}: input '{name}' has a free dimension beside the batch", "fix its size first")
    return {name: [size or batch for size in shape] for name, shape in shapes.items()}
