"""The page checks answers like the host does: both reject the same planted faults and accept right answers."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from runtimes.artifact import SelfCheck
from runtimes.artifact.json_fields import Fields
from runtimes.verification.selfcheck import judge

PAGE = Path(__file__).parents[3] / "converters" / "browser" / "page"
JUDGE = """
import { SelfCheck } from "./selfcheck.js";
import fs from "node:fs";
const cases = JSON.parse(fs.readFileSync(0, "utf8"));
const verdicts = cases.map(({ manifest, expected, given }) => {
  const stacked = { dtype: "float32", shape: expected.shape, data: Float32Array.from(expected.data) };
  const check = new SelfCheck(manifest, [{ shape: [expected.shape[0]] }], [stacked]);
  return check.judge([given.map((row) => Float32Array.from(row))]);
});
console.log(JSON.stringify(verdicts));
"""
VALUES = {
    "name": "y",
    "kind": "values",
    "parts": [{"axis": 1, "start": 0, "stop": 6, "span": 4.0, "natural": False, "step": 0.0}],
}
LABELS = {"name": "y", "kind": "labels", "parts": []}
_COLUMN = {"axis": 1, "natural": False, "step": 0.0}
ROWS = {
    "name": "y",
    "kind": "rows",
    "parts": [
        {**_COLUMN, "axis": 0, "start": 0, "stop": 12, "span": 0.0},
        *({**_COLUMN, "start": column, "stop": column + 1, "span": 4.0} for column in range(6)),
    ],
}


def _cases() -> dict[str, tuple[str, dict, np.ndarray, np.ndarray]]:
    """Return by name: precision, how to look into the output, the source's answers, and the result's."""
    draw = np.random.default_rng(7)
    right = draw.normal(0, 1, (4, 10, 6)).astype(np.float32)
    near = right + draw.normal(0, 1e-6, right.shape).astype(np.float32)
    dead, noisy, nan = near.copy(), near.copy(), near.copy()
    dead[..., 3] = 0.25
    noisy[..., 2] += draw.normal(0, 0.8, right.shape[:2])
    nan[1, 2, 3] = np.nan
    masked, same, finite, opposite = right.copy(), near.copy(), near.copy(), near.copy()
    for values in (masked, same, opposite):
        values[:, 0, 0], values[1, 2, 3] = -np.inf, np.nan
    opposite[2, 0, 0] = np.inf
    empty = np.empty((4, 0, 6), np.float32)
    coarse = {**VALUES, "parts": [{**VALUES["parts"][0], "step": 0.5}]}
    rows = draw.normal(0, 1, (4, 12, 6)).astype(np.float32)
    for sample, count in enumerate((12, 7, 3, 9)):
        rows[sample, count:] = np.nan
    shuffled, fewer, moved = rows[:, ::-1].copy(), rows.copy(), rows.copy()
    fewer[:, 0] = np.nan
    moved[0, 2, 3] += 0.5
    labels = draw.integers(0, 3, (2, 20, 20)).astype(np.float32)
    swapped = np.where(labels == 2, 1, labels).astype(np.float32)
    return {
        "right": ("fp32", VALUES, right, near),
        "without parts": ("fp32", {**VALUES, "parts": []}, right, near),
        "a dead column": ("int8", VALUES, right, dead),
        "a noisy column": ("fp16", VALUES, right, noisy),
        "a step too coarse": ("int8", coarse, right, near),
        "not finite": ("fp32", VALUES, right, nan),
        "right, with infinity and NaN where the source has them": ("fp32", VALUES, masked, same),
        "finite where the source is not": ("fp32", VALUES, masked, finite),
        "the opposite infinity": ("fp32", VALUES, masked, opposite),
        "right, without any value": ("fp32", {**VALUES, "parts": []}, empty, empty),
        "another order": ("int8", VALUES, right, near[::-1].copy()),
        "right labels": ("int8", LABELS, labels, labels),
        "a label lost": ("int8", LABELS, labels, swapped),
        "right rows": ("fp32", ROWS, rows, rows),
        "right rows in another order": ("fp32", ROWS, rows, shuffled),
        "a row less for every input": ("int8", ROWS, rows, fewer),
        "a row elsewhere": ("fp32", ROWS, rows, moved),
    }


def _numbers(values: np.ndarray) -> list[float | str]:
    """Return numbers, and words that JavaScript reads as numbers: JSON has no NaN and no infinity."""
    words = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
    return [float(value) if np.isfinite(value) else words[str(value)] for value in values.reshape(-1)]


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_page_and_host_agree_on_right_answers_and_on_every_fault(tmp_path: Path) -> None:
    cases, told = _cases(), []
    for precision, look, expected, given in cases.values():
        rule = {"metric": "snr_db", "tolerance": 12.0, "inputs": "arrays", "outputs": [look]}
        spec = {"name": "y", "dtype": "float32", "shape": list(expected.shape[1:]), "quantization": None}
        manifest = {"precision": precision, "inputs": [], "outputs": [spec], "selfcheck": rule}
        rows = [_numbers(row[~np.isnan(row).all(axis=1)] if look is ROWS else row) for row in given]
        told.append(
            {
                "manifest": manifest,
                "expected": {"shape": expected.shape, "data": _numbers(expected)},
                "given": rows,
            }
        )
    folder = Path(shutil.copytree(PAGE, tmp_path / "page"))
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "judge.js").write_text(JUDGE)
    done = subprocess.run(
        ["node", "judge.js"], cwd=folder, input=json.dumps(told), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for (name, (precision, _, expected, given)), one, found in zip(
        cases.items(), told, json.loads(done.stdout), strict=True
    ):
        rule = SelfCheck.read(Fields(one["manifest"]["selfcheck"], "rule"))
        verdict = judge(rule, {"y": expected}, {"y": given}, precision)
        assert found["passed"] == verdict.passed == name.startswith(("right", "without")), (name, found, verdict)
        if verdict.passed:
            assert found["metrics"] == pytest.approx(dict(verdict.metrics), rel=1e-4), name
        else:
            words = verdict.message.split(": ")[-1]
            assert found["message"].endswith(words) or words.split()[0] in found["message"], (name, found, verdict)
