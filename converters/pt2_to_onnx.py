"""PyTorch exported program → ONNX: by PyTorch's present exporter from opset 18 on, by its older one below.

Asked for less than 18, the present exporter stays at 18 and only logs it; the older one writes 11 to 17 as asked.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.onnx_opset import check_opset, wanted_opset
from converters.quiet import converting
from converters.steps import StepOptions, check_options
from converters.torch_program import example_inputs, input_names, output_names, read_program, with_batch
from runtimes.errors import EngineError, UsageError

if TYPE_CHECKING:
    from converters.calibration import Calibration

DEFAULT_OPSET = 18
_OLDEST, _PRESENT = 11, 18
_NEWEST = 22  # 23 brings an Attention operator, which ONNX Runtime 1.32 fails to run with a mask
_TOOL = "PyTorch's ONNX exporter"
_ATTENTION_OPSET = 14  # below, the older exporter has no scaled_dot_product_attention


class Step:
    """Inputs and outputs bear the program's names; `batch` None keeps the batch that the program leaves free."""

    source = "pt2"
    target = "onnx"
    precisions = ("fp32",)
    requires = ("torch", "onnx", "onnxscript")

    def convert(self, model: Path, out: Path, options: StepOptions, calibration: Calibration | None) -> Path:
        """Write `<model name>.onnx`; see `converters.steps.Step`."""
        check_options(self, options, calibration)
        opset = wanted_opset(options.opset, DEFAULT_OPSET, _OLDEST, _NEWEST, _TOOL)
        if options.batch is None and opset < _PRESENT:
            raise UsageError(f"{_TOOL} fixes the batch below opset {_PRESENT}", f"ask for opset {_PRESENT} or later")
        program = read_program(model)
        with converting(model, _TOOL):
            program = with_batch(program, options.batch, model)
            proto = _exported(program, opset) if opset >= _PRESENT else _traced(program, opset)
            _strip(proto)
            check_opset(proto, opset, _TOOL)
            content = proto.SerializeToString(deterministic=True)
        path = out / f"{model.stem}.onnx"
        path.write_bytes(content)
        return path


def _exported(program: Any, opset: int) -> Any:
    """The `onnx.ModelProto` of the present exporter."""
    import torch
    from torch.onnx.errors import OnnxExporterError

    names = {"input_names": input_names(program), "output_names": output_names(program)}
    try:
        exported = torch.onnx.export(program, dynamo=True, opset_version=opset, verbose=False, **names)
    except OnnxExporterError as error:
        raise _refusal(error) from error
    return exported.model_proto


def _refusal(error: Exception) -> EngineError:
    """What stopped the exporter: its own words begin with advice, the reason is the cause behind it."""
    reason: BaseException = error
    while reason.__cause__ is not None:
        reason = reason.__cause__
    line = next((line for line in str(reason).splitlines() if line.strip()), type(reason).__name__)
    return EngineError(f"{_TOOL} failed: {line[:300]}", "replace the operation in the model; --debug shows the rest")


def _traced(program: Any, opset: int) -> Any:
    """The `onnx.ModelProto` of the older exporter, which traces the program once with ones."""
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
        output_names=output_names(program),
    )
    proto = onnx.load_from_string(content.getvalue())
    _keep_unused_inputs(proto.graph, program)
    return proto


def _keep_unused_inputs(graph: Any, program: Any) -> None:
    """The older exporter leaves out inputs that nothing depends on; whoever feeds the model still has them."""
    from onnx import helper

    known = {value.name: value for value in graph.input}
    for name, example in zip(input_names(program), example_inputs(program), strict=True):
        if name not in known:
            kind = helper.np_dtype_to_tensor_dtype(example.numpy().dtype)
            known[name] = helper.make_tensor_value_info(name, kind, list(example.shape))
    del graph.input[:]
    graph.input.extend(known[name] for name in input_names(program))


def _positional(body: Any, in_spec: Any) -> Any:
    """The program as a module of tensors in order, answering with tensors in order, as the older exporter wants it."""
    import torch

    pytree = torch.utils._pytree

    class Positional(torch.nn.Module):  # type: ignore[misc,unused-ignore] # a class of a library without types
        def __init__(self) -> None:
            super().__init__()
            self.body = body

        def train(self, _mode: bool = True) -> Any:
            return self  # a program has one mode, and refuses to be asked

        def forward(self, *tensors: Any) -> Any:
            given, named = pytree.tree_unflatten(list(tensors), in_spec)
            return tuple(pytree.tree_leaves(self.body(*given, **named)))

    return Positional()


def _write_out_attention(body: Any) -> None:
    """Put matrix products and a softmax in the place of each attention in a `torch.fx.GraphModule`."""
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
    """Without the text that tells of this machine's files and of the exporter's doings."""
    del proto.metadata_props[:]
    for graph in (proto.graph, *proto.functions):
        graph.ClearField("doc_string")
        values = () if graph is not proto.graph else (*graph.input, *graph.output, *graph.value_info)
        for item in (*graph.node, *values):
            item.ClearField("doc_string")
            del item.metadata_props[:]
