"""ONNX fp32 → ONNX fp16, w8 (int8 weights), or int8 (QDQ) by ONNX Runtime's static quantization."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.base import ConversionOutput, Converter, Requirement, feeds_for
from converters.library_calls import converting, loading
from converters.onnx.opset import opset_of
from converters.options import ConvertOptions
from runtimes.errors import EngineError, UsageError

if TYPE_CHECKING:
    from converters.calibration.dataset import Calibration
    from converters.layer_errors import LayerError
    from converters.onnx.float16_fit import Float16Fit
    from runtimes.arrays import Arrays

_LAYERS = ("MatMul", "Gemm", "Conv", "ConvTranspose")
_MAX_COPIED_BYTES = 2**26  # of shared weights that are copied; larger ones are embeddings that are tied to the head
_OLDEST_OPSET = 13  # the first with an axis in QuantizeLinear


class OnnxToOnnx(Converter):
    """Inputs and outputs stay float32, or optionally float16 for fp16. int8: weights per channel, activations uint8."""

    source = "onnx"
    target = "onnx"
    precisions = ("fp16", "w8", "int8")
    requires = (Requirement("onnxruntime"), Requirement("onnx", "table"))
    keeps_layers = True

    def convert(
        self, model: Path, out: Path, options: ConvertOptions, calibration: Calibration | None
    ) -> ConversionOutput:
        """Write `<model name>.onnx`; see `converters.base.Converter`."""
        self.check(options, calibration)
        _io_dtype(options)
        names = _check_model(model, options)
        path = out / f"{model.stem}.onnx"
        if options.precision == "fp16":
            with converting(model, "ONNX Runtime's fp16 converter"):
                return _in_half(model, path, calibration, options)
        if options.precision == "w8":
            with converting(model, "the conversion to int8 weights"):
                path.write_bytes(_with_int8_weights(model))
            return ConversionOutput(model=path)
        assert calibration is not None
        with converting(model, "ONNX Runtime's quantizer"), tempfile.TemporaryDirectory() as folder:
            prepared = _prepare(_upgrade(model, Path(folder)), Path(folder))
            _quantize(prepared, path, calibration, names, _name_nodes(prepared, options.keep))
            _drop_unused_domains(path)
        return ConversionOutput(model=path)

    def keeps_free_sizes(self, _options: ConvertOptions) -> bool:
        """Return True: the graph keeps its inputs."""
        return True

    def layer_errors(
        self, model: Path, result: Path, _options: ConvertOptions, samples: Calibration
    ) -> Sequence[LayerError]:
        """See `converters.base.Converter`."""
        from converters.onnx.layer_errors import onnx_layers

        with converting(model, "ONNX Runtime"), tempfile.TemporaryDirectory() as folder:
            return onnx_layers(_prepare(model, Path(folder)), result, samples)

    def head_layers(self, model: Path, _result: Path) -> Sequence[tuple[str, ...]]:
        """See `converters.base.Converter`."""
        from converters.proof.onnx_origins import OnnxOrigins
        from converters.proof.origins import head_layers

        reader = OnnxOrigins(model)
        return [tuple(dict.fromkeys(map(reader.written_with, layers))) for layers in head_layers(reader)]


def _io_dtype(options: ConvertOptions) -> str:
    known = ("float32", "float16") if options.precision == "fp16" else ("float32",)
    if options.io_dtype not in (None, *known):
        what = f"ONNX {options.precision} cannot take {options.io_dtype}"
        raise UsageError(what, f"inputs and outputs: {', '.join(known)}")
    return options.io_dtype or "float32"


def _in_half(model: Path, path: Path, calibration: Calibration | None, options: ConvertOptions) -> ConversionOutput:
    proto, fit = _to_float16(model, calibration, _io_dtype(options))
    path.write_bytes(proto.SerializeToString(deterministic=True))
    device_model = fit.device_model(options.scratch, path.name)
    return ConversionOutput(model=path, facts=fit.facts, notes=fit.notes, device_model=device_model)


def _to_float16(path: Path, samples: Calibration | None, io_dtype: str) -> tuple[Any, Float16Fit]:
    """Return the model in fp16 as an `onnx.ModelProto`, with inputs and outputs of `io_dtype` (float32 or float16).

    Raises EngineError if a weight does not fit in fp16, or an inner tensor does not for one of the samples. With
    `samples` None, seeded random samples are used.
    """
    import onnx
    from onnxruntime.transformers.onnx_model import OnnxModel

    from converters.onnx.float16_fit import IN_FP32, fit_to_float16, to_float16

    model = onnx.load(path)
    fit = fit_to_float16(path, model, samples, sums_in_float32=True)
    if fit.beyond:
        raise EngineError(f"{path} does not fit in fp16: {fit.text()}", IN_FP32)
    half = OnnxModel(to_float16(model, keep_io_types=io_dtype == "float32"))
    _sort_nodes(half.model.graph)  # the converter appends the casts of inputs at the end
    onnx.checker.check_model(half.model)
    return half.model, fit


def _sort_nodes(graph: Any) -> None:
    """Sort the nodes so that each comes after those whose outputs it reads, also inside its branches and loops."""
    from converters.onnx.cleanup import replace_all

    made = {name for node in graph.node for name in node.output}
    needs = [
        {name for one in (node, *_inner_nodes(node)) for name in one.input} & made - set(node.output)
        for node in graph.node
    ]
    waiting, order, done = list(range(len(graph.node))), list[int](), set[str]()
    while waiting:
        later = []
        for place in waiting:
            if needs[place] <= done:
                order.append(place)
                done.update(graph.node[place].output)
            else:
                later.append(place)
        if len(later) == len(waiting):
            return  # a cycle, which the checker reports
        waiting = later
    replace_all(graph.node, [graph.node[place] for place in order])


def _inner_nodes(node: Any) -> Iterator[Any]:
    from converters.onnx.cleanup import all_nodes

    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            yield from all_nodes(graph)


def _with_int8_weights(model: Path) -> bytes:
    import onnx

    from converters.onnx.older_opset import at_least_opset
    from converters.onnx.weight_quantization import to_int8_weights

    proto = at_least_opset(onnx.load(model), _OLDEST_OPSET)
    to_int8_weights(proto)
    onnx.checker.check_model(proto)
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def _check_model(model: Path, options: ConvertOptions) -> list[str]:
    """Return the names of the model's inputs. Raises UsageError if its opset is not the requested one."""
    with loading(model, "ONNX"):
        import onnx

        source = onnx.load(model, load_external_data=False)
        found = opset_of(source)
        constants = {tensor.name for tensor in source.graph.initializer}  # old files list them as inputs too
    if options.opset not in (None, found):
        raise UsageError(f"{model} has opset {found}, not {options.opset}", "convert it again from its source")
    return [value.name for value in source.graph.input if value.name not in constants]


def _upgrade(model: Path, folder: Path) -> Path:
    """Return the model with at least the opset that int8 per channel needs: a copy in `folder` if it is older.

    Raises UsageError if it cannot be upgraded.
    """
    import onnx

    from converters.onnx.older_opset import at_least_opset

    if opset_of(onnx.load(model, load_external_data=False)) >= _OLDEST_OPSET:
        return model
    copy = folder / "upgraded.onnx"
    onnx.save(at_least_opset(onnx.load(model), _OLDEST_OPSET), copy)
    return copy


def _prepare(model: Path, folder: Path) -> Path:
    """Infer shapes and fold BatchNorm, which the quantizer requires."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = folder / "prepared.onnx"
    quant_pre_process(model, prepared, skip_symbolic_shape=True)
    _unshare_weights(prepared)
    return prepared


def _unshare_weights(path: Path) -> None:
    """Give every layer its own copy of shared weights, up to a size.

    ONNX Runtime 1.32 cannot open a quantized model in which two layers share them: fusing the second layer adds an
    initializer that exists already.
    """
    import onnx

    model = onnx.load(path)
    shared = {one.name: one for one in model.graph.initializer}
    seen: set[str] = set()
    for place, node in enumerate(model.graph.node):
        for index, name in enumerate(node.input):
            if index == 0 or node.op_type not in _LAYERS or name not in shared:
                continue
            if name in seen and shared[name].ByteSize() <= _MAX_COPIED_BYTES:
                copy = model.graph.initializer.add()
                copy.CopyFrom(shared[name])
                copy.name = node.input[index] = f"{name}:{place}"
            seen.add(name)
    if len(shared) < len(model.graph.initializer):
        onnx.save(model, path)


def _name_nodes(prepared: Path, layers: tuple[str, ...]) -> list[str]:
    """Return the names of the nodes that write the tensors `layers`, and of those that mask a softmax.

    Unnamed nodes get a name.
    """
    import onnx

    from converters.onnx.softmax import masking_nodes

    model = onnx.load(prepared)
    masks = masking_nodes(model)
    kept = [node for node in model.graph.node if node.output and (node.output[0] in layers or node in masks)]
    if not kept:
        return []
    for node in kept:
        node.name = node.output[0]
    onnx.save(model, prepared)
    return [node.name for node in kept]


def _quantize(model: Path, path: Path, calibration: Calibration, names: list[str], kept: list[str]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc,unused-ignore] # a class of a library without types
        def __init__(self) -> None:
            self._feeds = feeds_for(calibration, names)

        def get_next(self) -> Arrays | None:
            return next(self._feeds, None)

    quantize_static(
        model,
        path,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=kept,
    )


def _drop_unused_domains(path: Path) -> None:
    """Remove ONNX Runtime's own operator sets from the list, because other engines reject unknown ones."""
    import onnx

    model = onnx.load(path)
    used = {node.domain for node in model.graph.node}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    path.write_bytes(model.SerializeToString(deterministic=True))
