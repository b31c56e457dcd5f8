"""The example runs the contract suites of edge: `pytest contracts.py` where both are installed."""

from __future__ import annotations

from pathlib import Path

import example_plugin
import numpy as np
import pytest
from example_plugin.brightness import Brightness, BrightnessTask
from example_plugin.brightness_engine import Adapter
from example_plugin.brightness_view import BrightnessView
from example_plugin.onnx_to_null import OnnxToNull

from edge.testing import ConverterContract, EngineContract, ProfileContract, TaskContract, TaskExample, TaskViewContract
from runtimes.artifact import TensorSpec
from runtimes.model_files.facts import ModelFacts


class TestEngine(EngineContract):
    engine = Adapter()
    model = Path(__file__).parent / "picture.null"

    def expected(self, feeds):
        return {"brightness": feeds["picture"].mean() / 255}


class TestConverter(ConverterContract):
    converter = OnnxToNull()

    def source(self, folder):
        onnx = pytest.importorskip("onnx")
        infos = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y")]
        graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "same", infos[:1], infos[1:])
        opset = onnx.helper.make_opsetid("", 17)
        onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9), folder / "small.onnx")
        return folder / "small.onnx"


class TestTask(TaskContract):
    task = BrightnessTask()
    examples = (
        TaskExample(
            model=ModelFacts("m.null", "null", outputs=(TensorSpec("brightness", "float32", (1,)),)),
            outputs={"brightness": np.float32([0.25])},
            different={"brightness": np.float32([0.75])},
        ),
    )
    foreign = (ModelFacts("m.null", "null", outputs=(TensorSpec("y", "float32", (1,)),)),)


class TestView(TaskViewContract):
    view = BrightnessView()
    results = ((Brightness(0.25), 0.3),)


class TestDevices(ProfileContract):
    folder = Path(example_plugin.__file__).parent / "devices"
