"""Convert PyTorch exported programs to ONNX: with the current exporter for opset 18 and later, else with the legacy
one.

Below 18, the current exporter stays at 18 and only logs that. The legacy exporter writes 11 to 20, and is also used if
the current one fails.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.base import ConversionOutput, Converter, Requirement
from converters.library_calls import converting
from converters.onnx.opset import check_opset, choose_opset
from converters.options import ConvertOptions
from converters.pytorch.exported_program import (
    check_stateless,
    example_inputs,
    has_free_sizes,
    input_names,
    output_names,
    read_program,
    with_sizes,
)
from runtimes.errors import EngineError, UsageError

if TYPE_CHECKING:
    from converters.calibration.dataset import Calibration

DEFAULT_OPSET = 18
_OLDEST, _PRESENT = 11, 18
_NEWEST = 22  # 23 adds an Attention operator, which ONNX Runtime 1.32 fails to run with a mask
_NEWEST_TRACED = 20
_TOOL = "PyTorch's ONNX exporter"
_ATTENTION_OPSET = 14  # below that, the legacy exporter has no scaled_dot_product_attention


class Pt2ToOnnx(Converter):
    """Inputs and outputs keep the program's names. With `batch` None, a free batch stays free."""

    source = "pt2"
    target = "onnx"
    precisions = ("fp32",)
    requires = (Requirement("torch"), Requirement("onnx", "table"), Requirement("onnxscript"))

    def keeps_free_sizes(self, options: ConvertOptions) -> bool:
        """Return whether free sizes stay free: yes, except with the legacy exporter, which traces with fixed sizes."""
        return (options.opset or DEFAULT_OPSET) >= _PRESENT

    def convert(
        self, model: Path, out: Path, options: ConvertOptions, calibration: Calibration | None
    ) -> ConversionOutput:
        """Write `<model name>.onnx`; see `converters.base.Converter`."""
        self.check(options, calibration)
        opset = choose_opset(options.opset, DEFAULT_OPSET, _OLDEST, _NEWEST, _TOOL)
        if options.batch is None and opset < _PRESENT:
            raise UsageError(f"{_TOOL} fixes the batch below opset {_PRESENT}", f"ask for opset {_PRESENT} or later")
        program = read_program(model)
        check_stateless(program, model)
        with converting(model, _TOOL):
            program = with_sizes(program, options.batch, options.shapes, model)
            proto = _proto(program, opset)
            _strip(proto)
            check_opset(proto, opset, _TOOL)
            content = proto.SerializeToString(deterministic=True)
        path = out / f"{model.stem}.onnx"
        path.write_bytes(content)
        return ConversionOutput(model=path)


def _proto(program: Any, opset: int) -> Any:
    """Export with the current exporter, or if it fails or is too new, with the legacy one, which fixes all sizes.

    Raises the current exporter's EngineError if both fail. The proof compares either result with the program.
    """
    if opset < _PRESENT:
        return _trace(program, opset)
    try:
        return _export(program, opset)
    except EngineError as first:
        if opset > _NEWEST_TRACED or has_free_sizes(program):
            raise
        try:
            return _trace(program, opset)
        except Exception:
            raise first from None


def _export(program: Any, opset: int) -> Any:
    """Export with the current exporter; returns an `onnx.ModelProto`."""
    import torch
    from torch.onnx.errors import OnnxExporterError

    names = {"input_names": input_names(program), "output_names": _own_names(program)}
    try:
        exported = torch.onnx.export(program, dynamo=True, opset_version=opset, verbose=False, **names)
    except OnnxExporterError as error:
        raise _refusal(error) from error
    return exported.model_proto


def _own_names(program: Any) -> list[str]:
    """Return a name of its own for each output: a program may return an input, or one tensor twice."""
    names: list[str] = []
    for name in output_names(program):
        taken = {*input_names(program), *names}
        others = (f"{name}_{place}" for place in range(1, len(taken) + 2))
        names.append(name if name not in taken else next(one for one in others if one not in taken))
    return names


def _refusal(error: Exception) -> EngineError:
    """Convert the exporter's error. Its message begins with advice; the reason is in its `__cause__`."""
    reason: BaseException = error
    while reason.__cause__ is not None:
        reason = reason.__cause__
    line = next((line for line in str(reason).splitlines() if line.strip()), type(reason).__name__)
    return EngineError(f"{_TOOL} failed: {line[:300]}", "replace the operation in the model; --debug shows the rest")


def _trace(program: Any, opset: int) -> Any:
    """Export with the legacy exporter, which traces the program once with ones; returns an `onnx.ModelProto`."""
    import onnx
    import torch

    body = program.module(check_guards=False)
    if opset < _ATTENTION_OPSET:
        _write_out_attention(body)
    content = io.BytesIO()
    torch.onnx.export(
        _positional(body, program.call_spec.in_spec),
        tuple(example_inputs(program)),
        content,
        dynamo=False,
        opset_version=opset,
        input_names=input_names(program),
        output_names=_own_names(program),
    )
    proto = onnx.load_from_string(content.getvalue())
    _keep_unused_inputs(proto.graph, program)
    return proto


def _keep_unused_inputs(graph: Any, program: Any) -> None:
    """Add unused inputs back, which the legacy exporter drops although callers still pass them."""
    from onnx import helper

    known = {value.name: value for value in graph.input}
    for name, example in zip(input_names(program), example_inputs(program), strict=True):
        if name not in known:
            kind = helper.np_dtype_to_tensor_dtype(example.numpy().dtype)
            known[name] = helper.make_tensor_value_info(name, kind, list(example.shape))
    del graph.input[:]
    graph.input.extend(known[name] for name in input_names(program))


def _positional(body: Any, in_spec: Any) -> Any:
    """Wrap the program as a module with positional tensor inputs and outputs, which the legacy exporter requires."""
    import torch

    pytree = torch.utils._pytree

    class Positional(torch.nn.Module):  # type: ignore[misc,unused-ignore] # a class of a library without types
        def __init__(self) -> None:
            super().__init__()
            self.body = body

        def train(self, _mode: bool = True) -> Any:
            return self  # an exported program has one mode, and raises here

        def forward(self, *tensors: Any) -> Any:
            given, named = pytree.tree_unflatten(list(tensors), in_spec)
            return tuple(pytree.tree_leaves(self.body(*given, **named)))

    return Positional()


def _write_out_attention(body: Any) -> None:
    """Replace each attention in a `torch.fx.GraphModule` by matrix products and a softmax."""
    import torch

    for node in body.graph.nodes:
        if node.target is torch.ops.aten.scaled_dot_product_attention.default:
            node.target = _attention
    body.recompile()


def _attention(
    query: Any,
    key: Any,
    value: Any,
    mask: Any = None,
    _dropout: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """softmax(scale · query keyᵀ + mask) value, as `torch.nn.functional.scaled_dot_product_attention` defines it."""
    import torch

    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
    if is_causal:
        rows, columns = (torch.arange(size) for size in scores.shape[-2:])
        mask = columns <= rows[:, None]
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    return torch.softmax(scores, -1) @ value


def _strip(proto: Any) -> None:
    """Remove strings that mention local paths and exporter internals."""
    del proto.metadata_props[:]
    for graph in (proto.graph, *proto.functions):
        graph.ClearField("doc_string")
        values = () if graph is not proto.graph else (*graph.input, *graph.output, *graph.value_info)
        for item in (*graph.node, *values):
            item.ClearField("doc_string")
            del item.metadata_props[:]
