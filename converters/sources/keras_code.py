"""Keras models with custom classes: the user's own code provides them, and a SavedModel without them is exported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from converters.base import Requirement
from converters.library_calls import converting, first_useful_line, loading
from converters.sources.source import Export, ExportingSource, OpenedSource, SourceOptions
from runtimes.errors import EngineError, InputError, UsageError

_SUFFIXES = (".keras", ".h5")
_ROUNDING = 1e-5  # of the largest value: the SavedModel calls the same kernels
_FREE = 2  # an example size for a free axis


class KerasCodeSource(ExportingSource):
    """A `.keras` or `.h5` file, with `--code`: a Python file or module with its classes, run in the worker process."""

    id = "keras_code"
    requires = (Requirement("tensorflow"), Requirement("keras"))

    def recognizes(self, _path: Path) -> bool:
        """Return False: `--code` selects this source, not the file."""
        return False

    def open(self, path: Path, options: SourceOptions) -> OpenedSource:
        """See `Source`. Later steps treat the model as a SavedModel."""
        from runtimes.artifact import Artifact, Manifest

        self.check(path, options)
        saved = Artifact(Path(), Manifest(name=path.stem, format="savedmodel", precision="fp32", model=str(path)))
        return OpenedSource(artifact=saved, sha256="", export=Export(source=self, path=path, options=options))

    def check(self, path: Path, options: SourceOptions) -> None:
        """Raise UsageError for other models, and InputError for files that do not exist."""
        if path.suffix.lower() not in _SUFFIXES or not path.is_file():
            raise UsageError(f"--code does not apply to {path}", "leave it out; it is for .keras and .h5 files")
        code = str(options.code)
        if code.endswith(".py") and not Path(code).is_file():
            raise InputError(f"{code} does not exist", "give the Python file, or the module, with the model's classes")

    def describe(self, path: Path) -> str:
        """See `ExportingSource`."""
        return f"{path} is loaded with your own code (--code), which runs, and exported as a SavedModel"

    def export(self, path: Path, options: SourceOptions, folder: Path) -> Path:
        """Write the SavedModel `<name>` into the existing `folder`, and compare it with the model."""
        code = str(options.code)
        module = _import(code)
        with loading(path, f"a Keras model with the classes of {code}"):
            import keras

            from runtimes.engine_support.keras import load_any_model

            with keras.saving.custom_object_scope(_objects(module)):
                model = load_any_model(path)
        out = folder / path.stem
        with converting(path, "Keras' export to SavedModel"):
            described = _describe(model, path)
            _write(model, described, out)
            _compare(described, out, path)
        return out


def _import(code: str) -> Any:
    from converters.calibration.generator import import_file

    try:
        return import_file(Path(code)) if code.endswith(".py") else import_module(code)
    except (Exception, SystemExit) as error:  # user code may raise anything
        how = f"python {code}" if code.endswith(".py") else f"python -c 'import {code}'"
        what = f"{code} cannot be imported: {first_useful_line(error)}"
        raise InputError(what, f"check that `{how}` works in this folder and with this Python") from error


def _objects(module: ModuleType) -> dict[str, object]:
    """Return the classes and functions that the module defines, by name; decorated ones have registered themselves."""
    return {
        name: value
        for name, value in vars(module).items()
        if callable(value) and not name.startswith("_") and value.__module__ == module.__name__
    }


@dataclass(frozen=True)
class _Callable:
    """A model as a function of tensors in order, which returns its outputs by name; `specs` are `tf.TensorSpec`s."""

    call: Callable[..., Any]
    specs: Sequence[Any]


def _describe(model: Any, path: Path) -> _Callable:
    """Describe a model by its own names, or one that does not declare its inputs by the shape that it was built for.

    Raises InputError if it has neither.
    """
    import keras
    import tensorflow as tf

    from runtimes.engine_support.keras import call_in_order, output_names

    if getattr(model, "inputs", None) and getattr(model, "outputs", None):
        names = output_names(model)
        specs = [tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name) for tensor in model.inputs]
        return _Callable(lambda *given: dict(zip(names, call_in_order(model, given), strict=True)), specs)
    built: Any = (model.get_build_config() or {}).get("input_shape")
    shapes = built if isinstance(built, Mapping) else {"input": built}
    if not all(_is_shape(shape) for shape in shapes.values()):
        what = f"{path} does not declare the shape of its inputs"
        raise InputError(what, "call the model once before saving it, or save it as a functional model")

    def call(*given: Any) -> Any:
        inputs = dict(zip(shapes, given, strict=True)) if isinstance(built, Mapping) else given[0]
        found = model(inputs, training=False)
        if isinstance(found, Mapping) and all(isinstance(one, tf.Tensor) for one in found.values()):
            return dict(found)
        return {f"output_{place}": one for place, one in enumerate(keras.tree.flatten(found))}

    return _Callable(call, [tf.TensorSpec((None, *shape[1:]), tf.float32, name=name) for name, shape in shapes.items()])


def _is_shape(value: Any) -> bool:
    return bool(value) and all(size is None or isinstance(size, int) for size in value)


def _write(model: Any, described: _Callable, out: Path) -> None:
    import keras

    described.call(*map(_zeros, described.specs))  # a subclassed model is built by its first call
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serving_default", described.call, input_signature=list(described.specs))
    archive.write_out(str(out), verbose=False)


def _compare(described: _Callable, out: Path, path: Path) -> None:
    """Raise EngineError if the SavedModel's outputs for synthetic inputs differ from the model's."""
    import numpy as np
    import tensorflow as tf

    signature = tf.saved_model.load(str(out)).signatures["serving_default"]
    generator = np.random.default_rng(0)
    feeds = {spec.name: _example(spec, generator) for spec in described.specs}
    given = {name: np.asarray(value) for name, value in signature(**feeds).items()}
    for name, value in described.call(*feeds.values()).items():
        expected = np.asarray(value).astype(np.float64)
        limit = _ROUNDING * max(1.0, float(np.abs(expected).max())) if expected.size else 0.0
        if given[name].shape != expected.shape or not np.allclose(given[name], expected, rtol=0, atol=limit):
            what = (
                f"{path} gives other outputs as a SavedModel: it draws random numbers, or depends on how it is called"
            )
            raise EngineError(what, "make its call a function of its inputs alone")


def _sizes(spec: Any) -> list[int]:
    return [size or _FREE for size in spec.shape.as_list()]


def _zeros(spec: Any) -> Any:
    import tensorflow as tf

    return tf.zeros(_sizes(spec), spec.dtype)


def _example(spec: Any, generator: Any) -> Any:
    import tensorflow as tf

    sizes = _sizes(spec)
    values = generator.normal(size=sizes) if spec.dtype.is_floating else generator.integers(0, 2, sizes)
    return tf.constant(values, spec.dtype)
