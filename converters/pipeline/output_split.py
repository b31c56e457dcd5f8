"""Split outputs that int8 cannot hold in one scale, where no layer can stay in float."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from converters.library_calls import loading
from converters.pipeline.tensor_matching import pair_tensors
from converters.sources.source import OpenedSource
from runtimes.artifact import Artifact, Join, TensorSpec
from runtimes.errors import EdgeError
from runtimes.registry import open_session


@dataclass(frozen=True, kw_only=True)
class SplitSource:
    """The source with split outputs, their joins, and its outputs in the order in which it answers them."""

    source: OpenedSource
    joins: tuple[Join, ...]
    outputs: tuple[TensorSpec, ...]

    def joins_of(self, outputs: Sequence[TensorSpec]) -> tuple[Join, ...]:
        """Return the joins with the names and axes that the parts have in a result with these `outputs`."""
        pairs = {pair.source.name: pair for pair in pair_tensors(self.outputs, outputs, "output")}
        found = []
        for join in self.joins:
            axes = pairs[join.parts[0]].axes
            axis = axes.index(join.axis) if axes is not None else join.axis
            found.append(Join(join.output, axis, tuple(pairs[part].other.name for part in join.parts)))
        return tuple(found)


def split_source(source: OpenedSource, outputs: Collection[str], folder: Path) -> SplitSource | None:
    """Write the source with those of `outputs` split that end in a concatenation; None if there are none."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / source.model.name
    try:
        joins = _split(source, outputs, path)
        if not joins:
            return None
        artifact = Artifact(folder, replace(source.artifact.manifest, model=path.name, inputs=(), outputs=()))
        with open_session(artifact) as session:
            specs = tuple(session.outputs)
    except EdgeError:
        return None  # the proof's own verdict stands
    return SplitSource(source=replace(source, artifact=artifact), joins=joins, outputs=specs)


def _split(source: OpenedSource, outputs: Collection[str], path: Path) -> tuple[Join, ...]:
    if source.format == "onnx":
        from converters.onnx.output_split import split_onnx

        return split_onnx(source.model, outputs, path)
    if source.format == "keras":
        return split_keras(source.model, outputs, path)
    return ()


def split_keras(model: Path, outputs: Collection[str], path: Path) -> tuple[Join, ...]:
    """Write `model` to `path` with those of `outputs` that a Concatenate layer computes split into its inputs.

    Returns the joins. Nothing is written if there are none, or if the model is not a graph of layers.
    """
    with loading(model, "a Keras model"):
        import keras

        from runtimes.engine_support.keras import load_model, output_names

        network = load_model(model)
    if not isinstance(network, keras.Model):
        return ()
    try:
        found = network.outputs if isinstance(network, keras.Sequential) else network.output
    except AttributeError:  # a subclassed model has no graph of layers
        return ()
    if not isinstance(found, (list, tuple, keras.KerasTensor)):
        return ()
    tensors = [found] if isinstance(found, keras.KerasTensor) else list(found)
    joins, kept = [], {}
    for name, tensor in zip(output_names(network), tensors, strict=True):
        parts = _parts(tensor) if name in outputs else None
        if parts is None:
            kept[name] = tensor
            continue
        axis, inputs = parts
        names = tuple(f"{name}_part{place}" for place in range(len(inputs)))
        kept.update({one: keras.layers.Identity(name=one)(part) for one, part in zip(names, inputs, strict=True)})
        joins.append(Join(name, axis, names))
    if joins:
        keras.Model(network.inputs, list(kept.values())).save(path)
    return tuple(joins)


def _parts(tensor: Any) -> tuple[int, list[Any]] | None:
    """Return the axis and the inputs of the Concatenate layer that computes the tensor; None if another layer does."""
    import keras

    layer, index, _ = tensor._keras_history
    if not isinstance(layer, keras.layers.Concatenate):
        return None
    inputs = list(layer._inbound_nodes[index].input_tensors)
    axis = layer.axis if layer.axis >= 0 else layer.axis + len(tensor.shape)
    return (axis, inputs) if len(inputs) > 1 else None
