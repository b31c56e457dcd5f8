"""Convert ONNX for a Movidius NCS2: IR version 10 in fp16, with the last OpenVINO whose wheels contain MYRIAD.

It runs in a separate environment (Python 3.8). Its MYRIAD plugin reports for each layer whether it is supported,
without a stick. Its CPU plugin computes the reference for the cross-check.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.base import ConversionOutput, CrossCheckResult
from converters.environments import environment
from converters.library_calls import converting, loading
from converters.onnx.opset import shapes_for_batch
from converters.options import ConvertOptions
from runtimes.arrays import Arrays, load_arrays, save_arrays
from runtimes.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from converters.calibration.dataset import Calibration
    from runtimes.artifact.json_fields import JsonObject

RELEASE = "2021.4"
ENVIRONMENT = "openvino_2021_4"
ENGINE = "OpenVINO 2021.4.2"
_NEWEST_OPSET = 13
_SAFE_OPSET = 12  # of opset 13, it reads no Squeeze or Unsqueeze whose axes are an input
_TIMEOUT_S = 1800.0
_MAX_NAMED = 3
_TOO_LARGE = "the stick computes only in fp16: train with smaller values there, or scale the layer before"
_HINT = (
    f"its model optimizer reads ONNX up to opset {_NEWEST_OPSET} and may lack an operation: see `edge check --for ncs2`"
)


def convert_for_myriad(
    model: Path, out: Path, options: ConvertOptions, samples: Calibration | None
) -> ConversionOutput:
    """Write `<model name>.xml` and `.bin` into `out`.

    Raises RefusedError, naming the layers, if MYRIAD does not support some of them, and for values that fp16 cannot
    hold; UsageError for another release, another precision or a free batch; InputError for a broken model; HostError if
    the environment cannot be created.
    """
    from converters.onnx.float16_fit import fit_to_float16
    from converters.onnx.float16_range import save_model

    if options.release != RELEASE:
        raise UsageError(f"OpenVINO {options.release} is not available here", f"available: {RELEASE}")
    if options.precision != "fp16" or options.batch is None:
        raise UsageError("a Movidius stick supports only fp16 and a fixed batch", "leave out --precision")
    proto = _readable(model, shapes_for_batch(model, options.batch))
    fit = fit_to_float16(model, proto, samples)
    fit.check(model, _TOO_LARGE)
    path = out / f"{model.stem}.xml"
    with tempfile.TemporaryDirectory(prefix="edge-") as folder:
        given = save_model(proto, Path(folder) / model.name)
        job: JsonObject = {
            "job": "convert",
            "model": str(given.resolve()),
            "out": str(path.resolve()),
        }
        answer = environment(ENVIRONMENT).run(job, _TIMEOUT_S, f"{ENGINE} on {model}", _HINT)
    _check_layers(answer["refused"], answer["layers"], model)

    def cross_check(feeds: Arrays, outputs: Sequence[str]) -> CrossCheckResult:
        return _cross_check(path, feeds, outputs, answer["layers"])

    return ConversionOutput(
        model=path,
        facts={"layers_on_myriad": answer["layers"], **fit.facts},
        notes=fit.notes,
        device_model=fit.device_model(options.scratch, f"{model.stem}.onnx"),
        cross_check=cross_check,
    )


def _readable(model: Path, shapes: Mapping[str, Sequence[int]]) -> Any:
    """Return the model with its inputs in `shapes`, in the form that the old release reads and MYRIAD supports."""
    from converters.onnx.older_opset import at_most_opset
    from converters.onnx.softmax import softmax_over_last_axis

    with loading(model, "ONNX"):
        import onnx

        proto = onnx.load(model)
    with converting(model, "ONNX"):
        # Not as options of the model optimizer, which has no notation for the shape of a scalar.
        for value in proto.graph.input:
            for axis, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
                axis.dim_value = size
        softmax_over_last_axis(proto)
        _add_instead_of_subtracting(proto)
        proto = at_most_opset(proto, _SAFE_OPSET, f"the model optimizer of {ENGINE}")
        _write_squeezed_axes(proto)
        return proto


def _add_instead_of_subtracting(proto: Any) -> None:
    """Write -b of a computed b as h + h with h = b · -1/2, and a - b as a + (h + h), in place, which is exact.

    b · -1 is written like -b. The MYRIAD plugin reports its Subtract as unsupported, and the model optimizer turns
    a + b · -1 back into one.
    """
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    from converters.onnx.op_rewrites import attribute_of

    inferred = onnx.shape_inference.infer_shapes(proto).graph
    computed = {
        value.name
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    } - {tensor.name for tensor in proto.graph.initializer}
    written = [node for node in proto.graph.node if node.op_type == "Constant"]
    constants = {node.output[0]: attribute_of(node, "value", None) for node in written}
    constants |= {tensor.name: tensor for tensor in proto.graph.initializer}
    minus_one = {
        name
        for name, one in constants.items()
        if one is not None
        and one.data_type == onnx.TensorProto.FLOAT
        and list(one.dims) in ([], [1])
        and numpy_helper.to_array(one) == -1
    }
    nodes: list[Any] = []
    for node in proto.graph.node:
        subtracted = _subtracted(node, minus_one)
        if subtracted not in computed:
            nodes.append(node)
            continue
        result = node.output[0]
        factor, part = f"{result}/factor", f"{result}/part"
        negative = f"{result}/negative" if node.op_type == "Sub" else result
        proto.graph.initializer.append(numpy_helper.from_array(np.array(-0.5, np.float32), factor))
        nodes += [
            helper.make_node("Mul", [subtracted, factor], [part]),
            helper.make_node("Add", [part, part], [negative]),
        ]
        if node.op_type == "Sub":
            nodes.append(helper.make_node("Add", [node.input[0], negative], [result]))
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(copies)


def _write_squeezed_axes(proto: Any) -> None:
    """Write the axes of size 1 into each Squeeze without axes, in place: the model optimizer reads none without."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(proto).graph
    shapes = {
        value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*inferred.input, *inferred.value_info)
    }
    for node in proto.graph.node:
        if node.op_type == "Squeeze" and not node.attribute and node.input[0] in shapes:
            axes = [axis for axis, size in enumerate(shapes[node.input[0]]) if size == 1]
            node.op_type = "Squeeze" if axes else "Identity"
            node.attribute.extend([onnx.helper.make_attribute("axes", axes)] if axes else [])


def _subtracted(node: Any, minus_one: Collection[str]) -> str:
    """Return the tensor that a node subtracts or negates; "" for other nodes. `minus_one` are the constants -1."""
    if node.op_type in ("Sub", "Neg"):
        return str(node.input[-1])
    if node.op_type != "Mul" or not set(node.input) & set(minus_one):
        return ""
    return next((str(name) for name in node.input if name not in minus_one), "")


def _check_layers(refused: list[list[str]], layers: int, model: Path) -> None:
    if not refused:
        return
    named = ", ".join(f"{kind} '{name}'" for kind, name in refused[:_MAX_NAMED])
    more = f" and {len(refused) - _MAX_NAMED} more" if len(refused) > _MAX_NAMED else ""
    what = f"the MYRIAD plugin does not support {len(refused)} of the {layers} layers of {model}: {named}{more}"
    raise RefusedError(what, "`edge check --for ncs2` suggests what to change")


def _cross_check(path: Path, feeds: Arrays, outputs: Sequence[str], layers: int) -> CrossCheckResult:
    with tempfile.TemporaryDirectory(prefix="edge-") as folder:
        inputs_file, outputs_file = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
        save_arrays(inputs_file, feeds)
        job = {
            "job": "run",
            "model": str(path.resolve()),
            "inputs": str(inputs_file),
            "outputs": str(outputs_file),
            "names": list(outputs),
        }
        answer = environment(ENVIRONMENT).run(job, _TIMEOUT_S, f"{ENGINE} on {path}", _HINT)
        arrays = load_arrays(outputs_file)
        stick = answer["stick"]
    status = f"not run on a stick (MYRIAD plugin: '{stick}')" if stick else "loaded onto the stick on this machine"
    note = f"{ENGINE}: its MYRIAD plugin supports all {layers} layers; the numbers are from its CPU plugin; {status}"
    return CrossCheckResult(engine=f"{ENGINE} (CPU)", answers={name: arrays[name] for name in outputs}, notes=(note,))
