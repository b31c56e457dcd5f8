"""`edge deploy` against a real sshd."""

import json

from conftest import edge

from edge.remote.install import runtimes_files


def test_what_travels_is_small():
    # Bytes before compression (570,000, and 170,000 after it): seconds on a slow network.
    assert sum(path.stat().st_size for _, path in runtimes_files()) < 600_000


def test_a_deployed_artifact_is_right_and_a_repeat_changes_nothing(board, artifact):
    first = json.loads(edge("deploy", artifact, board.name, "--json").stdout)
    assert first["passed"]
    assert first["metrics"]["max_abs"] == 0
    assert first["copied"] == ["runtimes", artifact.name]
    before = {path: path.stat().st_mtime_ns for path in (board.home / ".edgeproof/artifacts").rglob("*")}
    second = json.loads(edge("deploy", artifact, board.name, "--json").stdout)
    assert second["copied"] == []
    assert {path: path.stat().st_mtime_ns for path in (board.home / ".edgeproof/artifacts").rglob("*")} == before


def test_uninstalling_leaves_no_trace(board, artifact):
    assert edge("deploy", artifact, board.name).returncode == 0
    assert edge("deploy", "--uninstall", board.name).returncode == 0
    assert list(board.home.iterdir()) == []
    assert "edge is not installed there" in edge("deploy", "--uninstall", board.name).stdout


def test_a_file_that_the_boards_disk_has_changed_is_sent_again(board, artifact):
    assert edge("deploy", artifact, board.name).returncode == 0
    (model,) = (board.home / ".edgeproof/artifacts").glob("*/*/*.tflite")
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    again = edge("deploy", artifact, board.name, "--json")
    assert json.loads(again.stdout)["copied"] == [artifact.name], again.stderr
    assert json.loads(again.stdout)["passed"]


def test_an_artifact_that_is_broken_here_is_not_sent(board, artifact):
    (artifact / "litert.tflite").write_bytes(b"?")
    done = edge("deploy", artifact, board.name)
    assert done.returncode == 3
    assert "has changed since" in done.stderr
    assert not (board.home / ".edgeproof/artifacts").exists()


def test_a_bare_file_has_nothing_to_be_verified_by(artifact):
    done = edge("deploy", artifact / "litert.tflite", "nowhere.invalid")
    assert done.returncode == 3
    assert "convert it first" in done.stderr


def test_a_board_that_is_not_there_is_one_line(artifact, boards):
    boards()
    done = edge("deploy", artifact, "pi@nowhere.invalid")
    assert done.returncode == 7
    assert done.stderr.splitlines()[-2].startswith("edge: the host nowhere.invalid is not found")
    assert "Traceback" not in done.stderr
