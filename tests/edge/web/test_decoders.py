"""The page decodes outputs as the host does: the same results for every layout, and every planted fault is seen."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.conversion.task import decoder_for_page
from runtimes.arrays import Array, Arrays
from runtimes.artifact.json_fields import to_json
from runtimes.artifact.manifest import TensorSpec
from runtimes.model_files.facts import ModelFacts, Producer
from runtimes.task import Placement
from runtimes.tasks import recognize
from tests.runtimes.tasks import test_detection, test_instances, test_pose, test_segmentation

PAGE = Path(__file__).parents[3] / "converters" / "browser" / "page"
DECODE = """
import fs from "node:fs";
import { taskOf } from "./tasks/index.js";
import { realTensors } from "./tensors.js";
const cases = JSON.parse(fs.readFileSync(0, "utf8"));
const results = cases.map(({ decoder, specs, outputs, placement }) => {
  const task = taskOf({ conversion: { browser: { decoder } }, output: null, outputs: specs }, null);
  const values = outputs.map((values) => Float32Array.from(values));
  try {
    return { task: task.id, result: task.toJson(task.decode(realTensors(specs, values), placement)) };
  } catch (error) {
    return { error: error.message };
  }
});
console.log(JSON.stringify(results));
"""
# A letterbox of a wide picture, a crop from the middle of a tall one, and a picture that is stretched.
PLACEMENTS = (
    Placement((256, 128), (0.25, 0.25), (0.0, 16.0)),
    Placement((90, 160), (0.8, 0.8), (-4.0, -32.0)),
    Placement((200, 50), (0.32, 1.28), (0.0, 0.0)),
)
SIZE, CELLS = 64, 84
MODULES = (test_detection, test_instances, test_pose, test_segmentation)


@dataclass(frozen=True)
class Case:
    """A model, and what it answers."""

    model: ModelFacts
    outputs: Arrays
    placement: Placement

    def to_page(self) -> dict[str, Any]:
        """What the page gets of it: outputs are in the order of the manifest."""
        task, decoder = recognize(self.model)
        specs = [to_json(spec) for spec in self.model.outputs]
        outputs = [self.outputs[spec.name].astype(float).reshape(-1).tolist() for spec in self.model.outputs]
        stated = decoder_for_page(task.id, decoder)
        return {"decoder": stated, "specs": specs, "outputs": outputs, "placement": to_json(self.placement)}

    def expected(self) -> Any:
        """The host's result."""
        task, decoder = recognize(self.model)
        return task.decode(self.outputs, decoder).in_picture(self.placement).to_json()


def _boxes(draw: np.random.Generator, count: int) -> Array:
    """Boxes that overlap: center x, center y, width, height, in pixels of the input."""
    centers = draw.choice([14.0, 30.0, 47.0], (count, 2)) + draw.normal(0, 3, (count, 2))
    return np.concatenate([centers, draw.uniform(8, 30, (count, 2))], axis=1).astype(np.float32)


def _corners(boxes: Array) -> Array:
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1).astype(np.float32)


def _random_detections(draw: np.random.Generator) -> list[tuple[ModelFacts, Arrays]]:
    """Every layout of detectors, full of random boxes and classes."""
    facts = test_detection.facts
    cells = np.concatenate([_boxes(draw, CELLS), draw.uniform(0, 1, (CELLS, 3)) ** 3], axis=1).astype(np.float32)
    old = np.concatenate([_boxes(draw, 3 * CELLS), draw.uniform(0, 1, (3 * CELLS, 4))], axis=1).astype(np.float32)
    logits = cells.copy()
    logits[:, 4:] = draw.normal(-2, 3, (CELLS, 3))
    rows = np.zeros((300, 6), np.float32)
    rows[:40] = np.concatenate(
        [_corners(_boxes(draw, 40)), draw.uniform(0, 1, (40, 1)), draw.integers(0, 3, (40, 1))], axis=1
    )
    centered = rows.copy()
    centered[:40, :4] = _boxes(draw, 40) / SIZE
    ssd = test_detection.post_processed()
    ssd["y0"][0] = _corners(_boxes(draw, 10))[:, [1, 0, 3, 2]] / SIZE
    ssd["y1"][0], ssd["y2"][0] = draw.integers(0, 3, 10), draw.uniform(0, 1, 10)
    anchored = test_detection.anchored()
    anchored["y0"][0] = draw.normal(0, 4, (896, 16))
    anchored["y0"][0, :, 2:4] = draw.uniform(10, 40, (896, 2))
    anchored["y1"][0] = draw.normal(-1, 2, (896, 1))
    queries = test_detection.queries()
    queries["pred_boxes"][0], queries["logits"][0] = _boxes(draw, 5) / SIZE, draw.normal(0, 3, (5, 4))
    shares = {**queries, "logits": np.float32(draw.uniform(0, 1, (1, 5, 4)))}
    return [
        (facts((1, 7, CELLS), labels=test_detection.NAMES), {"y0": cells.T[np.newaxis]}),
        (facts((1, CELLS, 7)), {"y0": logits[np.newaxis]}),
        (facts((1, 3 * CELLS, 8)), {"y0": old[np.newaxis]}),
        (facts((1, "n", 8), labels=test_detection.NAMES, task="detection"), {"y0": old[np.newaxis]}),
        (facts((1, 300, 6), operators={"TopK": 1}), {"y0": rows[np.newaxis]}),
        (facts((1, "n", 6), operators={"NonMaxSuppression": 1}), {"y0": rows[np.newaxis, :7]}),
        (facts((1, 300, 6), metadata={"head": "RTDETRDecoder"}, task="detection"), {"y0": centered[np.newaxis]}),
        (facts((), (), (), (), **test_detection.SSD), ssd),
        (facts(*test_detection.CHOSEN), test_detection.chosen(unit=1 / SIZE)),
        (test_detection.BLAZE, anchored),
        (facts(*test_detection.QUERIES), queries),
        (facts(*(TensorSpec(one, "float32", (1, 5, 4)) for one in queries), labels=None), queries),
        (facts(*test_detection.QUERIES, producers=(Producer("Sigmoid"), None)), shares),
    ]


def _random_poses_and_maps(draw: np.random.Generator) -> list[tuple[ModelFacts, Arrays]]:
    """Every layout of poses, instances and segmentation, full of random values."""
    people = test_pose.cells()
    people[0, :4] = _boxes(draw, CELLS).T
    people[0, 4], people[0, 5:] = draw.uniform(0, 1, CELLS) ** 2, draw.uniform(0, SIZE, (51, CELLS))
    several = np.float32(draw.uniform(0, 1, (1, 6, 56)))
    several[0, :, [51, 52]] /= 2
    movenet = np.float32(draw.uniform(0, 1, (1, 1, 17, 3)))
    maps = np.float32(draw.normal(0, 1, (1, 4, SIZE // 4, SIZE // 4)))
    masked, planes = test_instances.outputs()["y"], np.float32(draw.normal(0, 1, (1, 3, 16, 16)))
    masked[0, :4], masked[0, 4:6] = _boxes(draw, CELLS).T, draw.uniform(0, 1, (2, CELLS)) ** 3
    masked[0, 6:] = draw.normal(0, 1, (3, CELLS))
    across, down = np.indices((16, 16)) // 4
    checkered = np.zeros((1, 3, 16, 16), np.float32)
    checkered[0, 0] = 2 * ((across + down) % 2) - 1  # parts that touch at their corners
    instances = np.concatenate([_boxes(draw, 3 * CELLS), draw.uniform(0, 1, (3 * CELLS, 3))], axis=1)
    instances = np.float32(np.concatenate([instances, draw.normal(0, 1, (3 * CELLS, 3))], axis=1))[np.newaxis]
    last = masked.transpose(0, 2, 1), planes.transpose(0, 2, 3, 1)
    foreground = {"output_operator": "Sigmoid", "task": "segmentation"}
    four = {"task": "pose", "metadata": {"kpt_shape": "[4, 2]"}}
    return [
        (test_instances.facts(), {"y": masked, "p": planes}),
        (test_instances.facts((1, CELLS, 9), (1, 16, 16, 3)), {"y": last[0], "p": last[1]}),
        (test_instances.facts(), {**test_instances.outputs(), "p": checkered}),
        (test_instances.facts((1, 3 * CELLS, 10)), {"y": instances, "p": planes}),
        (test_instances.facts((1, 300, 9), labels=test_instances.NAMES), test_instances.selected()),
        (test_pose.facts(1, 56, CELLS, task="pose"), {"y": people}),
        (test_pose.facts(1, 300, 57, task="pose"), {"y": test_pose.selected()}),
        (test_pose.facts(1, 15, CELLS, labels=test_pose.ANIMALS, **four), {"y": test_pose.animals()}),
        (test_pose.facts(1, 300, 14, labels=test_pose.ANIMALS, **four), {"y": test_pose.selected_animals()}),
        (test_pose.facts(1, 6, 56), {"y": several}),
        (test_pose.facts(1, 1, 17, 3), {"y": movenet}),
        (test_segmentation.facts((1, 4, 16, 16), task="segmentation"), {"y": maps}),
        (test_segmentation.facts((1, 1, 16, 16), **foreground), {"y": maps[:, :1]}),
    ]


def _cases() -> list[Case]:
    known = [
        (example.model, outputs)
        for module in MODULES
        for example in module.TestContract.examples
        for outputs in (example.outputs, example.different)
    ]
    draw = np.random.default_rng(11)
    pairs = [*known, *_random_detections(draw), *_random_poses_and_maps(draw)]
    return [Case(model, outputs, PLACEMENTS[place % 3]) for place, (model, outputs) in enumerate(pairs)]


def _decode(cases: list[Case], folder: Path) -> list[dict[str, Any]]:
    """What the page's modules in `folder` make of the cases."""
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "decode.js").write_text(DECODE)
    told = json.dumps([case.to_page() for case in cases])
    done = subprocess.run(["node", "decode.js"], cwd=folder, input=told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def _is_equal(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        is_alike = isinstance(found, dict) and found.keys() == wanted.keys()
        return is_alike and all(_is_equal(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(_is_equal, found, wanted))
    if isinstance(wanted, float):
        return bool(found == pytest.approx(wanted, rel=1e-4, abs=2e-3))
    return bool(found == wanted)


@pytest.fixture
def pages(tmp_path: Path) -> Callable[[str, str, str], Path]:
    """Copies the page's modules, with a text of one of them replaced: `pages("pen.js", "old", "new")`."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")

    def copied(file: str = "", old: str = "", new: str = "") -> Path:
        folder = Path(shutil.copytree(PAGE, tmp_path / "page"))
        if file:
            text = (folder / file).read_text()
            assert text.count(old) == 1, f"{file} has {old!r} {text.count(old)} times"
            (folder / file).write_text(text.replace(old, new))
        return folder

    return copied


def test_page_and_host_decode_every_layout_to_the_same_result(pages) -> None:
    cases = _cases()
    layouts = {case.to_page()["decoder"]["layout"] for case in cases}
    listed = [one.__name__ for module in MODULES for one in module.TestContract.task.decoders]
    assert layouts == set(listed)
    results = _decode(cases, pages())
    filled = 0
    for case, found in zip(cases, results, strict=True):
        wanted = case.expected()
        assert _is_equal(found.get("result"), wanted), (case.model.outputs, found, wanted)
        filled += bool(wanted)
    assert filled >= len(cases) - 3


FAULTS = {
    "x and y swapped": ("decoders/ssd.js", "[left, top, right, bottom], size", "[top, left, bottom, right], size"),
    "key points swapped": ("tasks/pose.js", "x: x * width, y: y * height", "x: y * width, y: x * height"),
    "wrong stride": ("decoders/ssd.js", "Math.ceil(width / stride)]", "Math.ceil(width / (2 * stride))]"),
    "anchors of another order": ("decoders/ssd.js", "(column + 0.5) * width", "column * width"),
    "suppressed across classes": ("decoders/boxes.js", "return one.index === other.index && ", "return "),
    "not suppressed": ("decoders/yolo.js", "suppressed(confident(found, limits), limits)", "confident(found, limits)"),
    "not merged": ("decoders/ssd.js", "merged(confident(found, limits), limits)", "confident(found, limits)"),
    "letterbox not undone": ("decoders/boxes.js", "(y - offset[1]) / scale[1]]", "y / scale[1]]"),
    "class map not placed": ("tasks/segmentation.js", "(place + 0.5) * scale + offset", "(place + 0.5) * scale"),
    "objectness forgotten": ("decoders/yolo.js", "scores[0] * score", "score"),
    "the last class is not 'no object'": ("decoders/detr.js", ".subarray(0, -1)", ""),
    "channels last for first": ("tasks/segmentation.js", "axis === 1 ? [1, height * width] : [count, 1]", "[count, 1]"),
    "weights of a mask forgotten": ("tasks/instances.js", "weight * value(plane, pixel)", "value(plane, pixel)"),
    "mask of another box": ("tasks/instances.js", "(place + low[axis]) / FINER", "place / FINER"),
    "touching parts joined": ("decoders/outline.js", "TURNS[direction].map", "TURNS[direction].toReversed().map"),
    "objectness of instances forgotten": ("tasks/instances.js", "score * row[BOX]", "score"),
    "objectness of free axes forgotten": ("decoders/yolo.js", "stated ?? (classes", "stated ?? (false && classes"),
    "probabilities as logits": ("decoders/detr.js", "!areLogits ? values : ", ""),
    "logits as probabilities": ("decoders/yolo.js", "areLogits ? row.subarray(BOX).map(sigmoid) : ", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_seen(name, pages) -> None:
    cases = _cases()
    results = _decode(cases, pages(*FAULTS[name]))
    pairs = zip(cases, results, strict=True)
    assert not all(_is_equal(found.get("result"), case.expected()) for case, found in pairs)


def test_outputs_of_another_layout_end_in_a_sentence(pages) -> None:
    model, outputs = _random_detections(np.random.default_rng(11))[0]
    right = Case(model, outputs, PLACEMENTS[0])
    nan = np.full_like(outputs["y0"], np.nan)
    told = replace(right, outputs={"y0": outputs["y0"][:, :6]})
    folder = pages()
    short, broken = _decode([told], folder), right.to_page()
    assert "which is not what the manifest says" in short[0]["error"]
    broken["outputs"] = [["NaN"] * nan.size]
    done = subprocess.run(
        ["node", "decode.js"], cwd=folder, input=json.dumps([broken]), capture_output=True, text=True, check=True
    )
    assert "NaN or infinity in 'y0'" in json.loads(done.stdout)[0]["error"]


STATES = """
import { toInputs } from "./preprocess.js";
const spec = (name, dtype, shape, zero) => {
  const quantization = zero === null ? null : { scales: [0.5], zero_points: [zero], axis: null };
  return { name, dtype, shape, quantization };
};
const states = [spec("h", "uint8", [1, 4], 7), spec("c", "float32", [1, "n"], null)];
const specs = [states[0], spec("x", "float32", [1, 1, 2, 3], null), states[1]];
const rule = { layout: "NHWC", color: "RGB", mean: [0, 0, 0], scale: [1, 1, 1] };
const picture = { width: 2, height: 1, data: Uint8ClampedArray.from([1, 2, 3, 4, 5, 6]) };
console.log(JSON.stringify(toInputs(picture, specs, rule).map(({ data }) => [...data])));
"""


def test_inputs_beside_the_picture_begin_with_zeros(pages) -> None:
    folder = pages()
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "states.js").write_text(STATES)
    done = subprocess.run(["node", "states.js"], cwd=folder, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[7] * 4, [1, 2, 3, 4, 5, 6], [0]]
