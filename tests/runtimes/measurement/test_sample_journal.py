"""Samples are kept when the process that measured them dies."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np

from runtimes.measurement.protocols import timed_loop
from runtimes.measurement.sample_journal import SampleJournal, recover

KILLED = """
import sys, time
from pathlib import Path
from runtimes.measurement.sample_journal import SampleJournal
from runtimes.measurement.protocols import timed_loop
keep = SampleJournal(Path(sys.argv[1]), {"job": "measure"})
keep.begin({"runtime": "null"})
timed_loop(lambda: None, 10, keep.times)
print("half", flush=True)
timed_loop(lambda: time.sleep(0.001), 100000, keep.times)
"""


def test_a_process_that_is_killed_leaves_its_samples(tmp_path):
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "k")], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        while len((recover(tmp_path / "k") or {"values": {"samples_ms": []}})["values"]["samples_ms"]) <= 20:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    found = recover(tmp_path / "k")
    assert found["job"] == {"job": "measure"}
    assert found["values"]["runtime"] == "null"
    assert 20 < len(found["values"]["samples_ms"]) < 100_000
    assert all(sample >= 1 for sample in found["values"]["samples_ms"][10:])
    assert found["values"]["total_s"] > 0


def test_an_answer_is_worth_more_than_its_samples(tmp_path):
    keep = SampleJournal(tmp_path / "k", {"job": "measure"})
    keep.begin({})
    timed_loop(lambda: None, 5, keep.times)
    keep.finish({"status": "ok", "samples_ms": [1.0]})
    assert recover(tmp_path / "k")["values"] == {"status": "ok", "samples_ms": [1.0]}


def test_what_took_no_sample_leaves_nothing(tmp_path):
    assert recover(tmp_path / "nothing") is None
    SampleJournal(tmp_path / "k", {"job": "measure"}).begin({})
    assert recover(tmp_path / "k") is None


def test_a_broken_note_is_no_note(tmp_path):
    keep = SampleJournal(tmp_path / "k", {"job": "measure"})
    keep.begin({})
    timed_loop(lambda: None, 5, keep.times)
    (tmp_path / "k/job.json").write_text("{")
    assert recover(tmp_path / "k") is None


def test_where_nothing_can_be_written_the_samples_are_taken_all_the_same(tmp_path):
    keep = SampleJournal(tmp_path / "k", {})
    (tmp_path / "k/0000.times").mkdir()
    assert len(timed_loop(lambda: None, 7, keep.times)) == 7
    assert len(timed_loop(lambda: None, 7, SampleJournal(None, {}).times)) == 7


def test_where_no_folder_can_be_made_the_samples_are_taken_all_the_same(tmp_path):
    (tmp_path / "file").write_text("a disk that takes no folder")
    keep = SampleJournal(tmp_path / "file/k", {})
    keep.begin({})
    assert len(timed_loop(lambda: None, 7, keep.times)) == 7


def test_samples_in_a_file_are_those_that_are_returned(tmp_path):
    keep = SampleJournal(tmp_path / "k", {})
    keep.begin({})
    returned = timed_loop(lambda: None, 50, keep.times)
    assert np.allclose(recover(tmp_path / "k")["values"]["samples_ms"], returned)
    assert json.loads((tmp_path / "k/begun.json").read_text()) == {}
