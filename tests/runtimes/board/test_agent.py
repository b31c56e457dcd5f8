"""Programs that run on a board end with their client, and report how their worker died."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("fcntl", reason="boards run Linux")


def start(*words):
    command = [sys.executable, "-m", "runtimes.board.agent", *map(str, words)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def say(process, line):
    process.stdin.write((line + "\n").encode())
    process.stdin.flush()


def hear(process):
    return json.loads(process.stdout.readline().decode())


def test_jobs_pass_through_and_an_idle_worker_ends_with_its_client(tmp_path):
    (tmp_path / "m.null").write_bytes(b"x")
    with start("work", "runtimes.worker", tmp_path, "s") as agent:
        for _ in range(2):
            say(agent, json.dumps({"job": "describe", "artifact": str(tmp_path / "m.null")}))
            assert hear(agent)["runtime"] == "null"
        agent.stdin.close()
        assert agent.wait(30) == 0
        assert agent.stdout.read() == b""
    assert list((tmp_path / "kept/s/workers").iterdir()) == []


def test_a_client_that_leaves_in_a_job_takes_the_worker_with_it(tmp_path):
    (tmp_path / "m.null").write_bytes(b"x")
    long = {"name": "published", "runs": 50_000_000, "pause_s": 0}
    with start("work", "runtimes.worker", tmp_path, "s") as agent:
        say(agent, json.dumps({"job": "measure", "artifact": str(tmp_path / "m.null"), "protocol": long}))
        while hear(agent) != {"progress": {"phase": "measuring", "runs": 50_000_000}}:
            pass
        (worker,) = (tmp_path / "kept/s/workers").iterdir()
        agent.stdin.close()
        assert agent.wait(30) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(worker.name), 0)


def test_a_worker_that_dies_is_reported_with_its_signal(tmp_path):
    with start("work", "runtimes.worker", tmp_path, "s") as agent:
        while not list((tmp_path / "kept").glob("s/workers/*")):
            time.sleep(0.05)
        (worker,) = (tmp_path / "kept/s/workers").iterdir()
        os.kill(int(worker.name), signal.SIGSEGV)
        assert hear(agent)["died"] == -signal.SIGSEGV
        agent.stdin.close()


def test_the_board_is_held_by_one_at_a_time_and_given_back(tmp_path):
    with start("hold", tmp_path, "one") as first:
        assert hear(first) == {"held": True}
        with start("hold", tmp_path, "two") as second:
            assert hear(second) == {"waiting": True}
            first.stdin.close()
            first.wait(30)
            say(second, "")
            assert hear(second) == {"held": True}
            second.stdin.close()
            assert second.wait(30) == 0
    assert list((tmp_path / "kept").iterdir()) == []


def test_what_the_system_refuses_is_the_answer(tmp_path):
    (tmp_path / "kept").write_text("no folder")
    for words in (("hold", tmp_path, "one"), ("work", "runtimes.worker", tmp_path, "one")):
        with start(*words) as agent:
            answer = hear(agent)
            assert answer["error"] == "host"
            assert str(tmp_path / "kept") in answer["message"]
            assert agent.wait(30) == 1
            agent.stdin.close()


def test_a_client_that_stops_sending_has_left(tmp_path):
    with start("hold", tmp_path, "one", 0.3) as agent:
        assert hear(agent) == {"held": True}
        assert agent.wait(30) == 0


def test_what_has_arrived_is_removed_and_what_has_not_is_kept(tmp_path):
    for name in ("arrived", "waiting"):
        folder = tmp_path / "kept/one" / name
        folder.mkdir(parents=True)
        (folder / "job.json").write_text("{}")
        (folder / "answer.json").write_text('{"status": "ok"}')
    with start("hold", tmp_path, "one") as agent:
        assert hear(agent) == {"held": True}
        say(agent, "arrived")
        agent.stdin.close()
        assert agent.wait(30) == 0
    with start("kept", tmp_path, "two") as agent:
        (left,) = hear(agent)["kept"]
        assert (left["session"], left["name"], left["values"]) == ("one", "waiting", {"status": "ok"})
        agent.stdin.close()
