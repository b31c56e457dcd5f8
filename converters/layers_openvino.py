"""The values inside an OpenVINO network and its int8 twin, computed as they are written (see `converters.blame`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.blame import Layer, Node, rank, stacked
from converters.calibration import Calibration
from converters.steps import feeds_for
from runtimes.arrays import Arrays

_CHANNELS = 1  # of [batch, channels, height, width]
_NO_LAYERS = ("Parameter", "Result", "Constant", "FakeQuantize", "FakeConvert", "Convert", "ShapeOf")


def openvino_layers(network: Any, quantised: Path, samples: Calibration) -> list[Layer]:
    """The layers of the float `network` (an `openvino.Model`, changed here), the worst in the IR `quantised` first."""
    import openvino

    twin = openvino.Core().read_model(quantised)
    computed = _computed(network)
    nodes = [Node(_sources(operation), operation.get_friendly_name()) for operation in computed]
    wanted = [node.output for node in nodes]
    exact = _values(network, {name: op.output(0) for name, op in zip(wanted, computed, strict=True)}, samples)
    there = {operation.get_friendly_name(): operation for operation in twin.get_ordered_ops()}
    ports = {name: _rounded(there[name].output(0)) for name in wanted if name in there}
    rounded = {name for name, port in ports.items() if port.get_node().get_type_name() == "FakeQuantize"}
    return rank(nodes, exact, _values(twin, ports, samples), _CHANNELS, rounded)


def _computed(network: Any) -> list[Any]:
    """The operations with one output of floats that depend on an input, in the order of computation."""
    depends: set[str] = set()
    found = []
    for operation in network.get_ordered_ops():
        name = operation.get_friendly_name()
        if operation.get_type_name() == "Parameter" or depends.intersection(_sources(operation)):
            depends.add(name)
            is_float = operation.get_output_size() == 1 and operation.output(0).element_type.is_real()
            if is_float and operation.get_type_name() not in _NO_LAYERS:
                found.append(operation)
    return found


def _sources(operation: Any) -> tuple[str, ...]:
    return tuple(port.get_source_output().get_node().get_friendly_name() for port in operation.inputs())


def _rounded(port: Any) -> Any:
    """What the readers of `port` get: the output of the FakeQuantize behind it, where there is just that."""
    readers = [reader.get_node() for reader in port.get_target_inputs()]
    if len(readers) == 1 and readers[0].get_type_name() == "FakeQuantize":
        return readers[0].output(0)
    return port


def _values(network: Any, ports: dict[str, Any], samples: Calibration) -> Arrays:
    """The values at the ports, by the names given."""
    import openvino

    names = [port.get_any_name() for port in network.inputs]
    network.add_outputs(list(ports.values()))  # those that are outputs already do not come twice
    places = {_sources(result)[0]: place for place, result in enumerate(network.get_results())}
    wanted = {name: places[port.get_node().get_friendly_name()] for name, port in ports.items()}
    # Without VNNI the int8 kernels saturate: the blame is for rounding, not for this machine.
    exactly = {"INFERENCE_PRECISION_HINT": "f32", "LP_TRANSFORMS_MODE": "NO"}
    request = openvino.Core().compile_model(network, "CPU", exactly).create_infer_request()
    rows = []
    for feed in feeds_for(samples, names):
        values = request.infer(feed, share_outputs=False).to_tuple()
        rows.append({name: values[place] for name, place in wanted.items()})
    return stacked(rows)
