"""TFLite to the Edge TPU: checked, compiled where there is a compiler, and read back.

Google's compiler may not be copied, so a script stands in for it on PATH: it prints what versions 14 to 16 print, as
their users posted it, and hands out what the real one made of the same model (google-coral/test_data).
"""

from __future__ import annotations

import shutil
import stat
import sys
from pathlib import Path

import pytest

from converters.base import ConversionOutput
from converters.edgetpu.compiler import LogRow, compile_model, failure, find_compiler, read_log
from converters.tflite_to_edgetpu import TfliteToEdgetpu
from runtimes.errors import EdgeError, EngineError, InputError, RefusedError, UsageError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the compiler and its stand-in are no Windows programs")
data_test = pytest.mark.data

STDOUT = """\
Edge TPU Compiler version 16.0.384591198
Started a compilation timeout timer of 180 seconds.

Model compiled successfully in 187 ms.

Input model: {name}.tflite
Input size: 619.03KiB
Output model: {name}_edgetpu.tflite
Output size: 705.33KiB
On-chip memory used for caching model parameters: 553.25KiB
On-chip memory remaining for caching model parameters: 7.13MiB
Off-chip memory used for streaming uncached model parameters: 0.00B
Number of Edge TPU subgraphs: 1
Total number of operations: 31
Operation log: {name}_edgetpu.log
See the operation log file for individual operation details.
Compilation child process completed within timeout period.
Compilation succeeded!
"""
LOG = """\
Edge TPU Compiler version 16.0.384591198
Input: {name}.tflite
Output: {name}_edgetpu.tflite

Operator                       Count      Status

CONV_2D                        15         Mapped to Edge TPU
DEPTHWISE_CONV_2D              13         Mapped to Edge TPU
AVERAGE_POOL_2D                1          Mapped to Edge TPU
RESHAPE                        1          Mapped to Edge TPU
SOFTMAX                        1          {softmax}
"""
MOBILENET = "mobilenet_v1_0.25_128_quant"


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """Put a stand-in on PATH that says `stdout` and `log`, hands out `compiled`, and ends with `status`."""

    def install(stdout: str, log: str = "", compiled: Path | None = None, status: int = 0, seconds: int = 0) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir()
        (folder / "said").write_text(stdout)
        (folder / "log").write_text(log)
        copy = (
            f'cp "{compiled}" "$out/$stem"_edgetpu.tflite; cp "{folder}/log" "$out/$stem"_edgetpu.log'
            if compiled
            else ":"
        )
        program = folder / "edgetpu_compiler"
        program.write_text(
            '#!/bin/sh\necho "$@" > "$(dirname "$0")/asked"\n'
            'while [ $# -gt 1 ]; do [ "$1" = -o ] && out=$2; shift; done\nstem=$(basename "$1" .tflite)\n'
            f'sleep {seconds}\n{copy}\ncat "{folder}/said"\nexit {status}\n'
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(folder), prepend=":")
        return folder

    return install


@pytest.fixture
def without_compiler(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")


@pytest.fixture
def pair(data) -> tuple[Path, Path]:
    """A model and what the real compiler made of it."""
    folder = data / "edgetpu"
    return folder / f"{MOBILENET}.tflite", folder / f"{MOBILENET}_edgetpu.tflite"


def convert(model: Path, out: Path, **options) -> ConversionOutput:
    out.mkdir(exist_ok=True)
    return TfliteToEdgetpu().convert(model, out, TfliteToEdgetpu.Options(precision="int8", **options), None)


@data_test
def test_without_the_compiler_the_ready_file_and_the_command_are_the_result(pair, tmp_path, without_compiler):
    made = convert(pair[0], tmp_path / "out")
    assert (made.format, made.proxy) == ("tflite", None)
    assert made.model.read_bytes() == pair[0].read_bytes()
    assert made.facts["edgetpu"]["compiled"] is False
    assert made.facts["edgetpu"]["expected"]["mapped"] == 31
    assert made.remaining_commands[0].startswith("not compiled: edgetpu_compiler is not on this machine")
    assert f"edgetpu_compiler -s {MOBILENET}.tflite" in made.remaining_commands[1]
    assert "x86-64" in made.remaining_commands[1]
    assert "Colab" in made.remaining_commands[1]


@data_test
def test_the_users_compiler_is_run_and_what_it_made_is_read_back(pair, tmp_path, compiler):
    model, compiled = pair
    log = LOG.format(name=MOBILENET, softmax="Mapped to Edge TPU")
    folder = compiler(STDOUT.format(name=MOBILENET), log, compiled)
    made = convert(model, tmp_path / "out", min_mapped=0.9)
    assert made.model.name == f"{MOBILENET}_edgetpu.tflite"
    assert made.model.read_bytes() == compiled.read_bytes()
    assert [path.name for path in (tmp_path / "out").iterdir()] == [made.model.name]
    assert (made.format, made.proxy.model, made.proxy.format) == (None, model, "tflite")
    facts = made.facts["edgetpu"]
    assert (facts["compiler"], facts["mapped"], facts["operations"]) == ("16.0.384591198", 31, 31)
    assert (facts["cached_bytes"], facts["streamed_bytes"], facts["cpu_ops"]) == (566912, 0, {})
    assert not any("expected" in note for note in made.notes)
    assert (folder / "asked").read_text().split()[0] == "-s"


@data_test
def test_a_compiler_that_maps_less_than_asked_for_fails_the_conversion(pair, tmp_path, compiler):
    model, compiled = pair
    compiler(STDOUT.format(name=MOBILENET), LOG.format(name=MOBILENET, softmax="More than one subgraph"), compiled)
    with pytest.raises(RefusedError, match="30 of 31 operations were mapped, less than the requested 99%") as caught:
        convert(model, tmp_path / "out", min_mapped=0.99)
    assert "1 × SOFTMAX (More than one subgraph)" in caught.value.hint


@data_test
def test_a_floor_is_held_before_anything_is_compiled(data, tmp_path, without_compiler):
    model = data / "edgetpu" / "deeplabv3_mnv2_dm05_pascal_quant.tflite"
    assert convert(model, tmp_path / "low", min_mapped=0.5).facts["edgetpu"]["expected"]["mapped"] > 60
    with pytest.raises(RefusedError, match=r"\d+% of the operations and \d+% of the multiply-adds") as caught:
        convert(model, tmp_path / "high", min_mapped=1.0)
    assert "node" in caught.value.hint
    assert list((tmp_path / "high").iterdir()) == []


@data_test
def test_what_is_compiled_already_or_broken_is_refused(pair, tmp_path, without_compiler):
    with pytest.raises(InputError, match="already compiled"):
        convert(pair[1], tmp_path / "out")
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(pair[0].read_bytes()[:5000])
    with pytest.raises(InputError, match=r"broken\.tflite"):
        convert(broken, tmp_path / "out")


def test_a_float_model_is_refused_with_what_to_do(tmp_path, without_compiler):
    model = Path(__file__).parents[1] / "runtimes" / "models" / "litert.tflite"
    with pytest.raises(RefusedError, match=r"does not take litert\.tflite") as caught:
        convert(model, tmp_path / "out")
    assert caught.value.hint


@data_test
def test_a_model_that_would_compute_wrong_values_is_refused_as_that(data, tmp_path, without_compiler):
    with pytest.raises(RefusedError, match=r"would compute wrong values with dense_256\.tflite: node 1") as caught:
        convert(data / "real" / "edgetpu" / "dense_256.tflite", tmp_path / "out")
    assert "one scale for each dense layer" in caught.value.hint


@pytest.mark.parametrize("floor", [-0.1, 1.5])
def test_a_floor_that_is_no_share_is_refused(tmp_path, floor):
    with pytest.raises(UsageError, match="--min-mapped"):
        convert(tmp_path / "m.tflite", tmp_path / "out", min_mapped=floor)


@pytest.mark.parametrize(
    ("said", "kind", "cause", "fix"),
    [
        (
            "ERROR: Didn't find op for builtin opcode 'QUANTIZE' version '3'. An older version of this builtin might "
            "be supported.\nERROR: Registration failed.\nInvalid model: m.tflite\nModel could not be parsed\n",
            RefusedError,
            "does not support QUANTIZE in version 3",
            "edge convert",
        ),
        ("Invalid model: m.tflite\nModel not quantized\n", RefusedError, "not quantized throughout", "--calibration"),
        (
            "ERROR: Attempting to use a delegate that only supports static-sized tensors with a graph that has "
            "dynamic-sized tensors.\nCompilation failed: Model failed in Tflite interpreter.\n",
            RefusedError,
            "a size in the model is free",
            "batch of 1",
        ),
        (
            "ERROR: :61 op_context.no_integer_overflow_from_quantization was not true.\nERROR: Node number 3 (CONV_2D) "
            "failed to prepare.\n",
            RefusedError,
            "scale of a bias overflows",
            "pictures",
        ),
        ("Compilation failed due to large activation tensors in model.\n", RefusedError, "do not fit", "smaller"),
        ("Internal compiler error. Aborting!\n", EngineError, "internal error", "once more"),
        ("something new\nCompilation failed!\n", EngineError, "exit status 1: Compilation failed!", "edge check"),
        ("", EngineError, "no output", "edge check"),
    ],
)
def test_its_words_are_reported_as_causes(tmp_path, compiler, said, kind, cause, fix):
    compiler(f"Edge TPU Compiler version 16.0.384591198\n{said}" if said else "", status=1)
    model = tmp_path / "m.tflite"
    model.write_bytes(b"m")
    program = find_compiler()
    assert program is not None
    with pytest.raises(EdgeError) as caught:
        compile_model(program, model, tmp_path)
    assert type(caught.value) is kind
    assert cause in caught.value.message
    assert fix in caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint


def test_a_compiler_that_hangs_is_killed(tmp_path, compiler, monkeypatch):
    monkeypatch.setattr("converters.edgetpu.compiler._GRACE_S", 0)
    compiler("", seconds=10)
    with pytest.raises(EngineError, match="did not end within 1 s"):
        compile_model(str(find_compiler()), tmp_path / "m.tflite", tmp_path, timeout_s=1)


def test_a_success_without_a_file_is_a_failure(tmp_path, compiler):
    compiler("Compilation succeeded!\n")
    with pytest.raises(EngineError, match="exit status 0"):
        compile_model(str(find_compiler()), tmp_path / "m.tflite", tmp_path)


def test_one_operator_may_stand_in_several_rows():
    text = LOG.format(name="m", softmax="Operation is otherwise supported, but not mapped due to some limitation")
    rows = read_log(text + "CONV_2D                        2          More than one subgraph is not supported\n\nend\n")
    assert rows[0] == LogRow(operation="CONV_2D", count=15, status="Mapped to Edge TPU")
    assert rows[-1] == LogRow(operation="CONV_2D", count=2, status="More than one subgraph is not supported")
    assert rows[-2].status.endswith("some limitation")
    assert read_log("nothing of the kind\n3 4 5\n") == ()


def test_a_failure_names_the_model():
    assert "m.tflite" in failure(Path("m.tflite"), 1, "Internal compiler error. Aborting!").message


@data_test
def test_from_a_trained_model_to_the_proof(data, tmp_path, monkeypatch, compiler, capsys):
    """As a user: an int8 model, the compiler on PATH, an artifact whose self-check is what the source answers."""
    pytest.importorskip("ai_edge_litert")
    from edge.cli import main
    from runtimes.artifact import Artifact

    source = Path(shutil.copy(data / "edgetpu" / f"{MOBILENET}.tflite", tmp_path))
    log = LOG.format(name=MOBILENET, softmax="Mapped to Edge TPU")
    compiler(STDOUT.format(name=MOBILENET), log, data / "edgetpu" / f"{MOBILENET}_edgetpu.tflite")
    out = tmp_path / "artifact"
    assert main(["convert", str(source), "--for", "coral-usb", "--out", str(out)]) == 0
    assert "edgetpu int8" in capsys.readouterr().out
    artifact = Artifact.open(out)
    assert (artifact.manifest.format, artifact.manifest.model) == ("edgetpu", f"{MOBILENET}_edgetpu.tflite")
    assert (artifact.manifest.proof["run_as"], artifact.manifest.proof["passed"]) == ("tflite", True)
    assert artifact.manifest.selfcheck is not None
