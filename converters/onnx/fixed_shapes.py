"""Write an ONNX model again: with sizes for the free axes of its inputs, or without what few converters read.

OpenVINO, onnx2tf and TensorRT do not read local functions and sparse constants; ONNX Runtime does. PyTorch's exporter
wrote functions for its own operators in 2023 and 2024.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converters.library_calls import loading
from converters.wire.buffer import ByteSource
from converters.wire.protobuf import Message
from runtimes.artifact import TensorSpec
from runtimes.errors import InputError
from runtimes.model_files.onnx import external_files, is_axis_name
from runtimes.shapes import with_shapes

_GRAPH, _FUNCTIONS = 7, 25  # fields of onnx.ModelProto
_SPARSE_CONSTANTS = 15  # a field of onnx.GraphProto


def write_with_shapes(model: Path, shapes: Sequence[str], folder: Path) -> Path:
    """Write `model` with its inputs in `shapes` (`runtimes.shapes`) into `folder`, with its external weights.

    Raises UsageError for shapes that do not fit its inputs, InputError for a damaged file.
    """
    with loading(model, "ONNX"):
        import onnx

        proto = onnx.load(model, load_external_data=False)
        fix_shapes(proto, shapes)
        return write_with_weights(proto, model, folder)


def is_plain(model: Path) -> bool:
    """Return whether the model has neither local functions nor sparse constants, or is damaged, as its readers say."""
    try:
        content = Message(ByteSource.open(model))
        graph = content.message(_GRAPH)
    except InputError:
        return True
    return not content.has(_FUNCTIONS) and (graph is None or not graph.has(_SPARSE_CONSTANTS))


def write_plain(model: Path, folder: Path) -> Path:
    """Write `model` with its functions in place of their calls and its constants dense into `folder`; see `is_plain`.

    Raises InputError for a damaged file.
    """
    with loading(model, "ONNX"):
        import onnx
        from onnx.inliner import inline_local_functions

        proto = onnx.load(model, load_external_data=False)
        if proto.functions:
            proto = inline_local_functions(proto)
        proto.graph.initializer.extend(_dense(one) for one in proto.graph.sparse_initializer)
        del proto.graph.sparse_initializer[:]
        return write_with_weights(proto, model, folder)


def write_with_weights(proto: Any, model: Path, folder: Path) -> Path:
    """Write `proto`, which is `model` with changes, under its name into `folder`, next to its external weights."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in external_files(model):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model.parent / name, folder / name)
    path = folder / model.name
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return path


def fix_shapes(proto: Any, shapes: Sequence[str]) -> None:
    """Set the inputs of an `onnx.ModelProto` to `shapes`, and infer all other shapes again, in place."""
    import onnx

    constants = {tensor.name for tensor in proto.graph.initializer}
    values = [value for value in proto.graph.input if value.name not in constants]
    fixed = {spec.name: spec.shape for spec in with_shapes([_spec(value) for value in values], shapes)}
    names: dict[str, int] = {}
    for value in values:
        for axis, size in zip(value.type.tensor_type.shape.dim, fixed[value.name], strict=True):
            if isinstance(size, int):
                if is_axis_name(axis.dim_param):
                    names[axis.dim_param] = size
                axis.dim_value = size
    for value in proto.graph.output:
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in names:
                axis.dim_value = names[axis.dim_param]
            elif not axis.HasField("dim_value"):
                axis.Clear()
    del proto.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(proto)
    del proto.graph.output[:]
    proto.graph.output.extend(inferred.graph.output)


def _spec(value: Any) -> TensorSpec:
    import onnx

    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    return TensorSpec(value.name, dtype.name, tuple(_size(axis, place) for place, axis in enumerate(tensor.shape.dim)))


def _size(axis: Any, place: int) -> int | str:
    if axis.dim_value > 0:
        return int(axis.dim_value)
    return axis.dim_param if is_axis_name(axis.dim_param) else f"dim{place}"


def _dense(sparse: Any) -> Any:
    """Return an `onnx.SparseTensorProto` as a TensorProto. Its places are numbers or coordinates."""
    from onnx import numpy_helper

    values, places = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    dense = np.zeros(list(sparse.dims), values.dtype)
    if places.ndim == 1:
        dense.reshape(-1)[places] = values
    else:
        dense[tuple(places.T)] = values
    return numpy_helper.from_array(dense, sparse.values.name)
