"""The ssh connection: each of ssh's errors becomes one line that says what to do."""

import subprocess

import pytest
import sshd

from edge.remote.probe import probe
from edge.remote.ssh import ConnectionLostError, SshConnection, quote
from runtimes.errors import UsageError


def test_commands_share_one_connection_and_keep_their_bytes(boards):
    board = boards()
    with SshConnection(board.name) as line:
        assert line.read("printf 'a\\000b'; exit 3") == (3, b"a\0b")
        assert line.run("cat", lambda stream: stream.write(b"x" * 10**6))[1] == "x" * 10**6
    assert (board.home.parent / "sshd.log").read_text().count("Accepted publickey") == 1


# Each of these means something else to another shell than to /bin/sh, or ends its quotes.
@pytest.mark.parametrize(
    "script", ["echo a\necho b", "echo 'wait!'", "printf '%s' '\\\\'", "printf '%s' \"it's\" $((1+1))"]
)
def test_a_script_means_the_same_to_every_login_shell(boards, tmp_path, script):
    here = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    board = boards(shell=sshd.tcsh(tmp_path))
    with SshConnection(board.name) as line:
        assert line.run(script) == (0, here)


def test_a_board_whose_login_shell_is_tcsh_is_probed(boards, tmp_path):
    board = boards(shell=sshd.tcsh(tmp_path))
    (board.home / ".cshrc").write_text("echo Welcome\n")
    with SshConnection(board.name) as line:
        found = probe(line)
    assert found.home == str(board.home)
    assert found.python is not None


def test_a_jump_host_of_the_users_ssh_config_is_used(boards, tmp_path):
    jump, far = boards("jump"), boards("far")
    config = tmp_path / "ssh_config"
    config.write_text(config.read_text().replace("Host far\n", "Host far\n  ProxyJump jump\n"))
    with SshConnection("far") as line:
        assert line.run('echo "$HOME"') == (0, f"{far.home}\n")
    assert (jump.home.parent / "sshd.log").read_text().count("Accepted publickey") == 1


def test_nothing_is_left_running_when_the_line_is_closed(boards):
    board = boards()
    line = SshConnection(board.name)
    line.connect()
    master = line._master
    line.close()
    assert master.returncode is not None
    with SshConnection(board.name) as other:
        assert "cat" not in other.run("ps -e -o comm= | grep -x cat | tail -n +2")[1]


@pytest.mark.parametrize("host", ["", "-oProxyCommand=touch /tmp/x", "pi@a b"])
def test_what_is_no_host_never_reaches_ssh(host):
    with pytest.raises(UsageError):
        SshConnection(host)


def test_a_changed_host_key_is_refused_with_what_to_do(boards):
    board = boards()
    board.known_hosts.write_text(f"[127.0.0.1]:{board.port} {(board.home.parent / 'id.pub').read_text()}")
    with pytest.raises(ConnectionLostError, match=r"the host key of .* has changed") as caught:
        SshConnection(board.name).connect()
    remedy = caught.value.hint.split("`")[1]
    assert remedy == f"ssh-keygen -f {board.known_hosts} -R '[127.0.0.1]:{board.port}'"
    subprocess.run(["sh", "-c", remedy], check=True, capture_output=True)
    assert board.known_hosts.read_text() == ""


def test_an_unknown_host_key_is_not_accepted_in_silence(boards):
    board = boards()
    board.known_hosts.write_text("")
    with pytest.raises(ConnectionLostError, match="not known here") as caught:
        SshConnection(board.name).connect()
    assert f"ssh {board.name}" in caught.value.hint


def test_a_key_that_is_rejected_is_reported(boards):
    board = boards()
    (board.home.parent / "authorized_keys").write_text("")
    with pytest.raises(ConnectionLostError, match="refuses the login of this user") as caught:
        SshConnection(board.name).connect()
    assert "ssh-copy-id" in caught.value.hint


def test_a_host_that_does_not_exist_is_reported(boards):
    boards()
    with pytest.raises(ConnectionLostError, match=r"the host nowhere\.invalid is not found"):
        SshConnection("pi@nowhere.invalid").connect()


def test_a_board_without_an_ssh_server_is_reported(boards, tmp_path):
    board = boards()
    config = tmp_path / "ssh_config"
    config.write_text(config.read_text().replace(f"Port {board.port}", "Port 1"))
    with pytest.raises(ConnectionLostError, match="no ssh server answers"):
        SshConnection(board.name).connect()


def test_a_channel_never_connects_by_itself(boards):
    board = boards()
    with SshConnection(board.name) as line:
        command = line.command("true")
        line.cut()
        line._master.wait()
        assert subprocess.run(command, capture_output=True, check=False).returncode == 255
        with pytest.raises(ConnectionLostError):
            line.run("true")


def test_words_reach_the_shell_as_they_are():
    words = ["a b", "it's", "$HOME", "~/a $x"]
    out = subprocess.run(["sh", "-c", "printf '%s\\n' " + quote(words)], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[:3] == words[:3]
    assert out.stdout.splitlines()[3].endswith("/a $x")
