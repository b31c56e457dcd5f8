"""`edge.inspection` on a tiny model of every format, compared with each format's own library."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from edge.inspection import Inspection, inspect
from runtimes.artifact import Artifact
from runtimes.errors import EngineMissingError, InputError, UsageError
from runtimes.model_files.facts import Producer

MODELS = Path(__file__).parents[2] / "runtimes" / "models"
TINY = {
    "onnxruntime.onnx": ("onnx", {"Add": 2, "MatMul": 1}),
    "litert.tflite": ("tflite", {"ADD": 2, "FULLY_CONNECTED": 1}),
    "openvino.xml": ("openvino", {"Add": 2, "MatMul": 1}),
    "keras.keras": ("keras", {"Add": 2, "Dense": 1}),
    "torch.pt2": ("pt2", {"aten.add": 2, "aten.matmul": 1}),
    "tensorflow": ("savedmodel", {"AddV2": 2, "MatMul": 1}),
}


def look(path: Path) -> Inspection:
    return inspect(Artifact.open(path))


@pytest.mark.parametrize("name", TINY)
def test_every_format_tells_inputs_outputs_ops_and_precision(name):
    found = look(MODELS / name)
    assert (found.format, dict(found.ops)) == TINY[name]
    assert found.precision == "fp32"
    assert {spec.shape[1] for spec in found.inputs} == {3, 4}
    assert all(spec.dtype == "float32" and isinstance(spec.shape[0], str) for spec in found.inputs)
    if name == "keras.keras":  # the shape of a sum is known to Keras alone
        assert [note[-5:] for note in found.notes] == ["'sum'", "uble'"]
    else:
        assert {spec.shape[1] for spec in found.outputs} == {3, 4}
        assert found.parameter_bytes["float32"] == 48
    assert found.size_bytes > 48


@pytest.mark.parametrize("name", [name for name in TINY if name.partition(".")[0] != "litert"])
def test_inputs_have_the_names_that_were_given_to_them(name):
    assert {spec.name: spec.shape[1] for spec in look(MODELS / name).inputs} == {"wide": 4, "narrow": 3}


def test_a_quantized_model_is_int8_and_tells_its_scales():
    found = look(MODELS / "quantized.tflite")
    assert found.precision == "int8"
    assert {spec.dtype for spec in found.inputs} == {"uint8"}
    assert all(spec.quantization is not None and spec.quantization.zero_points == (127,) for spec in found.inputs)


def test_a_format_without_content_is_refused():
    with pytest.raises(UsageError, match="cannot inspect"):
        look(MODELS / "null.null")


# ---- ONNX


def onnx_model(nodes, initializers=(), inputs=None, outputs=None, **more):
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph(nodes, "g", inputs or [x], outputs or [y], list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], **more)


def saved(tmp_path: Path, model) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_onnx_metadata(tmp_path):
    pytest.importorskip("onnx")
    from onnx import helper

    model = onnx_model([helper.make_node("Softmax", ["x"], ["y"])], producer_name="us", ir_version=9)
    helper.set_model_props(model, {"key": "värde"})
    model.doc_string = "about it"
    found = look(saved(tmp_path, model))
    assert found.metadata == {
        "ir_version": 9,
        "opset": {"ai.onnx": 17},
        "producer": "us",
        "description": "about it",
        "properties": {"key": "värde"},
    }
    assert found.output_op == "Softmax"
    assert found.precision == "unknown"


@pytest.mark.parametrize("activations", [True, False])
def test_onnx_with_quantized_activations_is_int8_and_without_them_w8(tmp_path, activations):
    np = pytest.importorskip("numpy")
    pytest.importorskip("onnx")
    from onnx import helper, numpy_helper

    constants = [
        numpy_helper.from_array(np.ones((4, 4), np.int8), "w"),
        numpy_helper.from_array(np.float32(0.1), "s"),
        numpy_helper.from_array(np.int8(0), "z"),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wf"]),
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xf"]),
        helper.make_node("MatMul", ["xf" if activations else "x", "wf"], ["y"]),
    ]
    model = onnx_model(nodes if activations else [nodes[0], nodes[3]], constants)
    found = look(saved(tmp_path, model))
    assert found.precision == ("int8" if activations else "w8")
    assert found.parameter_bytes == {"int8": 17, "float32": 4}


def test_onnx_ops_within_branches_are_counted(tmp_path):
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    out = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["b"])], "branch", [], [out])
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    custom = helper.make_node("Mine", ["y"], ["z"], domain="my.ops")
    model = onnx_model([node, custom], inputs=[condition, x])
    found = look(saved(tmp_path, model))
    assert dict(found.ops) == {"If": 1, "Relu": 2, "my.ops.Mine": 1}
    assert found.inputs[1].shape == ("any",)


def test_onnx_dtypes_have_the_librarys_numbers():
    onnx = pytest.importorskip("onnx")
    from converters.onnx.graph import DTYPES

    theirs = {number: name.lower() for name, number in onnx.TensorProto.DataType.items()}
    ours = {"float32": "float", "float64": "double"}
    mine = {number: ours.get(name, name.replace("_", "")) for number, name in enumerate(DTYPES)}
    assert {number: mine[number] for number in theirs if number in mine} == theirs


# ---- the other formats


def test_pt2_dtypes_have_the_librarys_numbers():
    schema = pytest.importorskip("torch._export.serde.schema")
    from edge.inspection.pt2 import _DTYPES

    words = {"BYTE": "uint8", "CHAR": "int8", "SHORT": "int16", "INT": "int32", "LONG": "int64", "HALF": "float16"}
    words |= {"FLOAT": "float32", "DOUBLE": "float64", "BFLOAT16": "bfloat16", "BOOL": "bool"}
    words |= {"COMPLEXFLOAT": "complex64", "COMPLEXDOUBLE": "complex128", "UINT16": "uint16"}
    words |= {"UINT32": "uint32", "UINT64": "uint64"}
    theirs = {kind.value: words[kind.name] for kind in schema.ScalarType if kind.name in words}
    assert {number: name for number, name in _DTYPES.items() if "float8" not in name} == theirs


def test_pt2_names_free_dimensions_as_torch_does():
    shapes = {spec.shape for spec in look(MODELS / "torch.pt2").inputs}
    assert len({shape[0] for shape in shapes}) == 1
    assert all(shape[0].isidentifier() for shape in shapes)


def test_savedmodel_counts_only_what_answers(tmp_path):
    # Saving and restoring are in the file too; the signature does not lead there.
    assert "SaveV2" not in look(MODELS / "tensorflow").ops


def test_keras_from_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    with zipfile.ZipFile(MODELS / "keras.keras") as archive:
        config = archive.read("config.json").decode()
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file.attrs["model_config"] = config
        file.attrs["keras_version"] = "3.0"
    found = look(tmp_path / "model.h5")
    assert dict(found.ops) == {"Add": 2, "Dense": 1}
    assert found.metadata["keras"] == "3.0"


def test_hdf5_without_a_model_says_so(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["kernel"] = [1.0]
    with pytest.raises(InputError, match="weights but no model"):
        look(tmp_path / "weights.h5")


def test_hdf5_without_h5py_names_the_extra(tmp_path, monkeypatch):
    (tmp_path / "h5py.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "model.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    with pytest.raises(EngineMissingError, match="h5py") as caught:
        look(tmp_path / "model.h5")
    assert "[keras]" in caught.value.hint


def keras_file(folder: Path, config: object) -> Path:
    with zipfile.ZipFile(folder / "model.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(config))
    return folder / "model.keras"


def dense(**config: object) -> dict[str, object]:
    full = {"name": "head", "dtype": "float32", "units": 10, "activation": "linear", **config}
    return {"class_name": "Dense", "config": full, "build_config": {"input_shape": [None, 7]}}


def sequential(*layers: object) -> dict[str, object]:
    given = {"class_name": "InputLayer", "config": {"name": "x", "batch_shape": [None, 7], "dtype": "float32"}}
    return {"class_name": "Sequential", "config": {"name": "s", "layers": [given, *layers]}}


def test_keras_output_of_a_dense_layer_is_known(tmp_path):
    found = look(keras_file(tmp_path, sequential(dense(activation="softmax"))))
    assert found.outputs[0].shape == ("d0", 10)
    assert found.output_op == "softmax"
    assert found.notes == ()


def test_keras_layers_of_own_classes_need_no_name_in_their_configuration(tmp_path):
    own = {"class_name": "Own", "name": "own", "registered_name": "Own", "config": {"trainable": True}}
    found = look(keras_file(tmp_path, sequential(dense(), own)))
    assert found.ops == {"Dense": 1, "Own": 1}


def test_keras_counts_layers_of_models_within_models(tmp_path):
    found = look(keras_file(tmp_path, sequential(sequential(dense(), dense()), dense())))
    assert dict(found.ops) == {"Dense": 3}


@pytest.mark.parametrize(
    ("policy", "precision"),
    [
        ("float16", "fp16"),
        ("mixed_float16", "fp32"),
        ({"class_name": "DTypePolicy", "config": {"name": "bfloat16"}}, "bf16"),
        ({"class_name": "QuantizedDTypePolicy", "config": {"name": "int8_from_float32"}}, "w8"),
        ({"class_name": "QuantizedDTypePolicy", "config": {"mode": "int8", "source_name": "float32"}}, "w8"),
    ],
)
def test_keras_precision_is_the_layers_policy(tmp_path, policy, precision):
    assert look(keras_file(tmp_path, sequential(dense(dtype=policy)))).precision == precision


def ir(tmp_path: Path, layers: str, edges: str = "", prolog: str = '<?xml version="1.0"?>') -> Path:
    path = tmp_path / "model.xml"
    path.write_text(f'{prolog}<net name="n" version="11"><layers>{layers}</layers><edges>{edges}</edges></net>')
    return path


def constant(kind: str, size: int) -> str:
    data = f'<data element_type="{kind}" shape="{size}" offset="0" size="{size}"/>'
    return f'<layer id="{kind}" name="w" type="Const">{data}</layer>'


@pytest.mark.parametrize(
    ("layers", "precision"),
    [
        (constant("f16", 100) + constant("f32", 4), "fp16"),
        (constant("i8", 100) + constant("f32", 4), "w8"),
        (constant("i8", 100) + '<layer id="q" name="q" type="FakeQuantize"/>', "int8"),
        (constant("u4", 100), "w4"),
    ],
)
def test_openvino_precision(tmp_path, layers, precision):
    found = look(ir(tmp_path, layers))
    assert found.precision == precision
    assert found.notes == ("its weights file model.bin is missing",)


def test_openvino_output_operator_is_found_behind_a_reshape(tmp_path):
    made = '<output><port id="1"/></output></layer>'
    layers = f'<layer id="0" name="s" type="SoftMax">{made}'
    layers += f'<layer id="1" name="r" type="Reshape"><input><port id="0"/></input>{made}'
    layers += '<layer id="2" name="out" type="Result"><input><port id="0" precision="FP32"><dim>1</dim><dim>-1</dim>'
    layers += "</port></input></layer>"
    edges = '<edge from-layer="0" from-port="1" to-layer="1" to-port="0"/>'
    edges += '<edge from-layer="1" from-port="1" to-layer="2" to-port="0"/>'
    found = look(ir(tmp_path, layers, edges))
    assert found.output_op == "SoftMax"
    assert (found.outputs[0].name, found.outputs[0].shape) == ("out", (1, "d1"))


BOMB = '<?xml version="1.0"?><!DOCTYPE net [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
THIEF = '<?xml version="1.0"?><!DOCTYPE net [<!ENTITY passwords SYSTEM "file:///etc/passwd">]>'


def test_an_argmax_shows_of_how_many_classes_it_chooses(tmp_path):
    openvino = pytest.importorskip("openvino")
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 5, 8, 8])
    chosen = helper.make_tensor_value_info("y", TensorProto.INT64, [1, 8, 8])
    node = helper.make_node("ArgMax", ["x"], ["y"], axis=1, keepdims=0)
    model = helper.make_model(helper.make_graph([node], "g", [image], [chosen]), ir_version=9)
    path = saved(tmp_path, model)
    assert look(path).producers == (Producer("ArgMax", 0, 5),)
    openvino.save_model(openvino.convert_model(path), tmp_path / "model.xml")
    assert [one.classes for one in look(tmp_path / "model.xml").producers] == [5]


@pytest.mark.data
def test_tflite_operators_that_choose_show_of_how_many_classes(data):
    detector = look(data / "real" / "traffic_model.tflite")
    assert detector.producers[0] == Producer("TFLite_Detection_PostProcess", 0, 3)
    segmenter = look(data / "edgetpu" / "deeplabv3_mnv2_dm05_pascal_quant.tflite")
    assert segmenter.producers == (Producer("ARG_MAX", 0, 21),)


@pytest.mark.parametrize("prolog", [BOMB, THIEF, '<?xml version="1.0"?><!DOCTYPE net SYSTEM "other.dtd">'])
def test_openvino_with_a_document_type_is_refused(tmp_path, prolog):
    with pytest.raises(InputError, match="declares a document type"):
        look(ir(tmp_path, '<layer id="0" name="&passwords;" type="Result"/>', prolog=prolog))


def test_openvino_deep_nesting_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nests elements more than .* edge does not support"):
        look(ir(tmp_path, "<a>" * 5000 + "</a>" * 5000))
