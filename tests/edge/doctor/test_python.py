"""Python and its packages: each check reports its problem, and nothing without it."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.metadata import distributions

import pytest

from edge.doctor import engines, python, table
from edge.doctor.packages import Packages
from edge.doctor.snapshot import observe
from runtimes.errors import InputError
from runtimes.registry import EngineStatus

JETSON = {"proc/device-tree/model": "NVIDIA Jetson Nano Developer Kit"}
GTX_1080 = {
    "sys/bus/pci/devices/0000:01:00.0/vendor": "0x10de",
    "sys/bus/pci/devices/0000:01:00.0/device": "0x1b80",
    "sys/bus/pci/devices/0000:01:00.0/class": "0x030000",
    "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t NVIDIA GeForce GTX 1080\n",
}


def with_python(snapshot, **fields):
    healthy = snapshot()
    return replace(healthy, python=replace(healthy.python, **fields))


def test_python_3_11_will_do(snapshot):
    assert [one.level for one in python.version(snapshot())] == ["ok"]


def test_an_older_python_will_not(snapshot):
    (found,) = python.version(with_python(snapshot, version=(3, 9, 2)))
    assert found.level == "error"
    assert "Python 3.9.2 is too old" in found.what
    assert "python3.11 -m venv" in found.fix


@pytest.mark.parametrize(("bits", "levels"), [(64, []), (32, ["warning"])])
def test_a_32_bit_python_has_no_engines(snapshot, bits, levels):
    assert [one.level for one in python.word_size(with_python(snapshot, bits=bits))] == levels


def test_an_environment_of_its_own_is_fine(snapshot):
    fields = {"in_environment": True, "externally_managed": True, "can_make_environments": False}
    assert list(python.environment(with_python(snapshot, **fields))) == []


def test_the_systems_own_python_is_left_alone(snapshot):
    (found,) = python.environment(with_python(snapshot, in_environment=False, externally_managed=True))
    assert "PEP 668" in found.why
    assert "python3 -m venv" in found.fix


def test_debians_missing_venv_is_named(snapshot):
    (found,) = python.environment(with_python(snapshot, in_environment=False, can_make_environments=False))
    assert found.fix == "sudo apt-get install python3-venv"


def test_requirements_that_are_met_are_fine(snapshot, install):
    install("numpy", "2.1.0")
    packages = install("engine", "1.0", requires=("NumPy>=1.24", "tqdm; extra == 'bars'", "x; python_version < '3'"))
    assert [one.level for one in python.requirements(snapshot(packages=packages))] == ["ok"]


def test_a_requirement_that_is_too_old_and_one_that_is_absent_are_named(snapshot, install):
    install("protobuf", "3.20.3")
    packages = install("tf-engine", "2.21", requires=("protobuf>=5.28", "tensorflow>=2.21"))
    (found,) = python.requirements(snapshot(packages=packages))
    assert (found.level, found.what) == ("warning", "tf-engine 2.21 lacks protobuf>=5.28, tensorflow>=2.21")
    assert found.fix == "pip install 'protobuf>=5.28' 'tensorflow>=2.21'"


def test_a_requirement_that_cannot_be_parsed_is_skipped(snapshot, install):
    packages = install("ancient", "0.1", requires=("this is (no requirement",))
    assert [one.level for one in python.requirements(snapshot(packages=packages))] == ["ok"]


def test_without_packaging_the_requirements_are_not_judged(snapshot, monkeypatch):
    monkeypatch.setattr(python, "_packaging", lambda: None)
    (found,) = python.requirements(snapshot())
    assert (found.level, found.fix) == ("note", "pip install packaging")


def test_pips_own_copy_of_packaging_stands_in(snapshot, install, monkeypatch):
    pytest.importorskip("pip._vendor.packaging.requirements", reason="this environment has no pip")
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    packages = install("engine", "1.0", requires=("absent",))
    assert [one.level for one in python.requirements(snapshot(packages=packages))] == ["warning"]


def test_no_engine_at_all_is_reported(snapshot):
    null = EngineStatus("null", "", ("null",), installed=True, version="1")
    absent = EngineStatus("litert", "ai_edge_litert", ("tflite",), installed=False, version=None)
    (found,) = engines.any_engine(snapshot(engines=lambda: [null, absent]))
    assert (found.level, found.fix) == ("warning", "pip install 'edgeproof[onnxruntime]'")


def test_installed_engines_are_listed(snapshot):
    there = EngineStatus("litert", "ai_edge_litert", ("tflite",), installed=True, version="2.3.0")
    (found,) = engines.any_engine(snapshot(engines=lambda: [there]))
    assert (found.level, found.what) == ("ok", "engines: litert 2.3.0")


def test_the_pycoral_of_pypi_is_a_stranger(snapshot, install):
    packages = install("pycoral", "0.2.0", pycoral__pycoral="")
    (found,) = engines.pycoral(snapshot(packages=packages))
    assert found.level == "error"
    assert "Allen Coral Atlas" in found.why
    assert found.fix.startswith("pip uninstall --yes pycoral")


def test_googles_pycoral_is_welcome(snapshot, install):
    packages = install("pycoral", "2.0.0", **{"pycoral__utils__edgetpu.py": ""})
    assert list(engines.pycoral(snapshot(packages=packages))) == []
    assert list(engines.pycoral(snapshot())) == []


def test_tflite_runtime_breaks_with_numpy_2(snapshot, install):
    install("tflite-runtime", "2.14.0")
    (found,) = engines.tflite_runtime(snapshot(packages=install("numpy", "2.4.6")))
    assert (found.level, "_ARRAY_API not found" in found.why) == ("error", True)
    assert found.fix == "pip uninstall --yes tflite-runtime && pip install 'edgeproof[litert]'"


def test_tflite_runtime_hurts_less_where_litert_has_replaced_it(snapshot, install):
    install("tflite-runtime", "2.14.0")
    install("numpy", "2.4.6")
    (found,) = engines.tflite_runtime(snapshot(packages=install("ai-edge-litert", "2.3.0")))
    assert (found.level, found.fix) == ("warning", "pip uninstall --yes tflite-runtime")


def test_tflite_runtime_is_fine_with_numpy_1(snapshot, install):
    install("tflite_runtime", "2.14.0")
    assert list(engines.tflite_runtime(snapshot(packages=install("numpy", "1.26.4")))) == []


CUDA_BUILD = {"torch__version.py": "__version__ = '2.13.0'\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n"}
CPU_BUILD = {"torch__version.py": "__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n"}


def test_torch_for_cuda_without_a_gpu_is_reported(snapshot, install):
    packages = install("torch", "2.13.0", **CUDA_BUILD)
    (found,) = engines.torch_build(snapshot(packages=packages))
    assert found.what == "torch 2.13.0 is built for CUDA 13.0, but there is no NVIDIA GPU"
    assert "pytorch.org" in found.fix


@pytest.mark.parametrize("files", [GTX_1080, JETSON])
def test_torch_for_cuda_with_a_gpu_is_right(snapshot, install, files):
    packages = install("torch", "2.13.0", **CUDA_BUILD)
    assert list(engines.torch_build(snapshot(files, packages=packages))) == []
    assert [one.level for one in engines.gpu_unused(snapshot(files, packages=packages))] == ["ok"]


def test_torch_for_the_cpu_is_fine_without_a_gpu(snapshot, install):
    packages = install("torch", "2.13.0+cpu", **CPU_BUILD)
    assert list(engines.torch_build(snapshot(packages=packages))) == []
    assert list(engines.gpu_unused(snapshot(packages=packages))) == []


def test_a_gpu_that_no_engine_uses_is_reported(snapshot, install):
    packages = install("torch", "2.13.0+cpu", **CPU_BUILD)
    (found,) = engines.gpu_unused(snapshot(GTX_1080, packages=packages))
    assert (found.level, "pip install onnxruntime-gpu" in found.fix) == ("warning", True)
    (found,) = engines.gpu_unused(snapshot(JETSON, packages=packages))
    assert "JetPack" in found.fix


@pytest.mark.parametrize(
    ("names", "module"),
    [
        (("tensorflow", "tensorflow-cpu"), "tensorflow"),
        (("onnxruntime", "onnxruntime-gpu"), "onnxruntime"),
        (("opencv-python", "opencv-contrib-python"), "cv2"),
    ],
)
def test_two_packages_of_one_folder_are_reported(snapshot, install, names, module):
    alone = install(names[0], "1.0")
    assert list(python.conflicting_packages(snapshot(packages=alone))) == []
    (found,) = python.conflicting_packages(snapshot(packages=install(names[1], "1.0")))
    assert f"'{module}'" in found.why
    assert found.fix.startswith("pip uninstall --yes")
    assert all(name in found.fix for name in names)


def test_what_the_table_lacks_is_named(snapshot, install):
    (found,) = table.packages(snapshot(packages=install("keras", "3.15.1")))
    assert "tensorflow-cpu, onnxruntime, ai-edge-litert" in found.what
    assert "keras" not in found.what
    assert found.fix == "pip install 'edgeproof[table]'"


def test_the_table_asks_for_what_its_extra_installs():
    """The packages that the check names are those that the extra brings, Pillow apart, which has its own check."""
    requirement = pytest.importorskip("packaging.requirements").Requirement
    ours = Packages.installed()
    wanted, seen = ["table"], set()
    for extra in wanted:
        for needed in map(requirement, ours.requirements("edgeproof")):
            if needed.marker is not None and needed.marker.evaluate({"extra": extra}):
                wanted += [one for one in needed.extras if one not in wanted]
                seen |= {needed.name} - {"edgeproof"}
    assert seen - {"pillow"} <= {name for names in table._PACKAGES for name in names}
    assert all(seen & set(names) for names in table._PACKAGES)


def test_a_table_with_all_its_packages_is_fine(snapshot, install):
    for names in table._PACKAGES:
        packages = install(names[0], "1.0")
    assert [one.level for one in table.packages(snapshot(packages=packages))] == ["ok"]


def test_pictures_need_pillow(snapshot, install):
    (found,) = table.pictures(snapshot())
    assert found.fix == "pip install 'edgeproof[pictures]'"
    assert list(table.pictures(snapshot(packages=install("Pillow", "12.0")))) == []


def test_missing_weights_are_reported_and_present_ones_named(snapshot):
    (found,) = table.weights(snapshot(trained_weights=lambda: None))
    assert (found.level, "random weights" in found.why) == ("note", True)
    (found,) = table.weights(snapshot())
    assert (found.level, found.what) == ("ok", "MobileNetV2's trained weights: weights.safetensors")


def test_broken_weights_are_an_error_with_their_own_hint(snapshot):
    def broken():
        raise InputError("w.safetensors: the tensor stem.weight is missing", "give another file")

    (found,) = table.weights(snapshot(trained_weights=broken))
    assert (found.level, found.what) == ("error", "w.safetensors: the tensor stem.weight is missing")
    assert found.fix == "give another file"


def test_a_package_is_found_however_its_name_is_written(install):
    packages = install("Some_Package", "1.0")
    assert packages.version("some-package") == packages.version("some.package") == "1.0"
    assert packages.version("another") is None
    assert list(packages) == ["some-package"]


def test_of_two_copies_the_one_counts_that_python_imports(install, tmp_path):
    install("twice", "1.0")
    (tmp_path / "site-packages").rename(tmp_path / "first")
    install("twice", "2.0")
    path = [str(tmp_path / "first"), str(tmp_path / "site-packages")]
    assert Packages(distributions(path=path)).version("twice") == "1.0"


def test_this_machines_situation_can_be_observed():
    seen = observe()
    assert seen.packages.version("numpy")
    assert seen.python.bits in (32, 64)
    assert seen.free_bytes(seen.cache) > 0
    assert {one.id for one in seen.engines()} >= {"null"}


@pytest.mark.parametrize(("system", "name"), [("Darwin", "macOS"), ("Windows", "Windows")])
def test_a_system_that_edge_is_not_tested_on_is_reported(snapshot, system, name) -> None:
    machine = snapshot().machine
    (found,) = python.operating_system(snapshot(machine={**machine, "os": {**machine["os"], "system": system}}))
    assert found.level == "note"
    assert name in found.what
    assert "ONNX" in found.why


def test_nothing_is_reported_for_linux_or_a_board(snapshot) -> None:
    machine = snapshot().machine
    other = {**machine, "os": {**machine["os"], "system": "Darwin"}}
    assert (
        list(python.operating_system(snapshot(machine={**machine, "os": {**machine["os"], "system": "Linux"}}))) == []
    )
    assert list(python.operating_system(snapshot(machine=other, is_board=True))) == []
