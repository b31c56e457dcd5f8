"""What docs/termux.sh prints and does on a phone, with stand-ins for Termux' own programs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "docs" / "termux.sh"


@pytest.fixture
def phone(tmp_path):
    """Run the script with 4 GB free, and programs that write down how they were called."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "meminfo").write_text("MemTotal: 6000000 kB\nMemAvailable: 4000000 kB\n")
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(100))

    def program(name, content):
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\n{content}\n")
        path.chmod(0o755)

    program("llama-server", f'echo "$@" > {tmp_path}/called')

    def run(*words, **more):
        environment = {
            "PATH": f"{tmp_path}/bin:/usr/bin:/bin",
            "HOME": str(tmp_path),
            "MEMINFO": str(tmp_path / "meminfo"),
            **more,
        }
        return subprocess.run(
            ["sh", str(SCRIPT), *map(str, words)], env=environment, capture_output=True, text=True, check=False
        )

    run.folder, run.program = tmp_path, program
    return run


def test_it_serves_this_phone_alone(phone):
    assert phone(phone.folder / "model.gguf").returncode == 0
    called = (phone.folder / "called").read_text()
    assert "--host 127.0.0.1" in called
    assert "--api-key-file" not in called


def test_the_network_is_served_behind_a_key(phone):
    done = phone(phone.folder / "model.gguf", "--lan")
    key = phone.folder / ".edge-llama-key"
    assert len(key.read_text()) == 48
    assert key.stat().st_mode & 0o77 == 0
    assert f"--api-key-file {key}" in (phone.folder / "called").read_text()
    assert f"EDGE_API_KEY={key.read_text()} edge chat --server" in done.stderr
    again = key.read_text()
    phone(phone.folder / "model.gguf", "--lan")
    assert key.read_text() == again


def test_a_missing_server_is_installed(phone):
    (phone.folder / "bin" / "llama-server").unlink()
    server = phone.folder / "bin" / "llama-server"
    phone.program("pkg", f"echo \"$@\"; printf '#!/bin/sh\\nexit 0\\n' > {server}; chmod +x {server}")
    done = phone(phone.folder / "model.gguf")
    assert done.returncode == 0
    assert "install -y llama-cpp" in done.stderr


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        ((), 2, "no model was given"),
        (("model.gguf", "--wan"), 2, "unknown option '--wan'"),
        (("nowhere.gguf",), 3, "cannot be read"),
        (("meminfo",), 3, "is not a GGUF file"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_a_hint(phone, words, status, told):
    done = phone(*(phone.folder / words[:1][0], *words[1:]) if words else ())
    assert done.returncode == status
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_a_model_that_the_memory_does_not_hold_is_refused(phone):
    (phone.folder / "meminfo").write_text("MemAvailable: 500000 kB\n")
    done = phone(phone.folder / "model.gguf")
    assert done.returncode == 7
    assert "edge check" in done.stderr
    assert not (phone.folder / "called").exists()


def test_elsewhere_than_in_termux_it_says_so(phone):
    (phone.folder / "bin" / "llama-server").unlink()
    assert phone(phone.folder / "model.gguf").returncode == 4
