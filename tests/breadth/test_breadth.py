"""Many networks to many formats: nearly all pass, no result is wrong, and refusals name the operation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_MATRIX = Path(__file__).with_name("matrix.py")


@pytest.mark.nightly
@pytest.mark.timeout(6 * 3600)
def test_networks_of_every_family_convert_and_none_comes_out_wrong(tmp_path: Path) -> None:
    out = Path(os.environ.get("BREADTH_RESULTS", tmp_path / "breadth.json"))  # set it to resume after an interruption
    subprocess.run([sys.executable, str(_MATRIX), "--out", str(out)], check=True)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    passed = [row for row in rows if row["state"] == "pass"]
    assert not [row for row in rows if row["state"] in ("WRONG", "not made")]
    assert len(passed) >= 0.9 * len(rows)
    assert [row["reason"] for row in rows if row["state"] == "refused" and not row["ops"]] == []
