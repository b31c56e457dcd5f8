"""Compare the inner tensors of an OpenVINO model with those of its int8 model, computed as written in the IR.

See `converters.layer_errors`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.base import feeds_for
from converters.calibration.dataset import Calibration
from converters.layer_errors import GraphNode, LayerError, rank, stack_rows
from runtimes.arrays import Arrays

_CHANNELS = 1  # of [batch, channels, height, width]
_NO_LAYERS = ("Parameter", "Result", "Constant", "FakeQuantize", "FakeConvert", "Convert", "ShapeOf")


def openvino_layers(network: Any, quantized: Path, samples: Calibration) -> list[LayerError]:
    """Return the layers of the float `network`, those with the largest error in the IR `quantized` first.

    `network` is an `openvino.Model`; it is modified.
    """
    import openvino

    twin = openvino.Core().read_model(quantized)
    computed = _computed_layers(network)
    nodes = [GraphNode(_sources(operation), operation.get_friendly_name()) for operation in computed]
    wanted = [node.output for node in nodes]
    exact = _values(network, {name: op.output(0) for name, op in zip(wanted, computed, strict=True)}, samples)
    operations = {operation.get_friendly_name(): operation for operation in twin.get_ordered_ops()}
    ports = {name: _round(operations[name].output(0)) for name in wanted if name in operations}
    rounded = {name for name, port in ports.items() if port.get_node().get_type_name() == "FakeQuantize"}
    return rank(nodes, exact, _values(twin, ports, samples), _CHANNELS, rounded)


def _computed_layers(network: Any) -> list[Any]:
    """Return the operations that depend on an input and have one float output, in execution order."""
    depends: set[str] = set()
    computed = []
    for operation in network.get_ordered_ops():
        name = operation.get_friendly_name()
        if operation.get_type_name() == "Parameter" or depends.intersection(_sources(operation)):
            depends.add(name)
            is_float = operation.get_output_size() == 1 and operation.output(0).element_type.is_real()
            if is_float and operation.get_type_name() not in _NO_LAYERS:
                computed.append(operation)
    return computed


def _sources(operation: Any) -> tuple[str, ...]:
    return tuple(port.get_source_output().get_node().get_friendly_name() for port in operation.inputs())


def _round(port: Any) -> Any:
    """Return the output of the FakeQuantize after `port` if that is its only consumer, else `port`."""
    readers = [reader.get_node() for reader in port.get_target_inputs()]
    if len(readers) == 1 and readers[0].get_type_name() == "FakeQuantize":
        return readers[0].output(0)
    return port


def _values(network: Any, ports: dict[str, Any], samples: Calibration) -> Arrays:
    """Compute the values at the ports. Returns them under the same names."""
    import openvino

    names = [port.get_any_name() for port in network.inputs]
    network.add_outputs(list(ports.values()))  # existing outputs are not added twice
    places = {_sources(result)[0]: place for place, result in enumerate(network.get_results())}
    wanted = {name: places[port.get_node().get_friendly_name()] for name, port in ports.items()}
    # Without VNNI the int8 kernels saturate. The errors should show the rounding, not this machine's kernels.
    exactly = {"INFERENCE_PRECISION_HINT": "f32", "LP_TRANSFORMS_MODE": "NO"}
    request = openvino.Core().compile_model(network, "CPU", exactly).create_infer_request()
    rows = []
    for feed in feeds_for(samples, names):
        values = request.infer(feed, share_outputs=False).to_tuple()
        rows.append({name: values[place] for name, place in wanted.items()})
    return stack_rows(rows)
