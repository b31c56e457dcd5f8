"""Start a board, and print how to reach it: `python -m tests.boards up --face jetson-nano`."""

from __future__ import annotations

import argparse
import signal
import sys

from tests.boards.debian import CannotStand
from tests.boards.faces import FACES
from tests.boards.root import get_root
from tests.boards.stand import standing


def _leave(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Run the command. Returns 0 after Ctrl+C, 7 if this machine cannot run a board."""
    parser = argparse.ArgumentParser(prog="python -m tests.boards", description=__doc__)
    parser.add_argument("action", choices=("make", "up"), help="make: fetch its files, once; up: until Ctrl+C")
    parser.add_argument("--face", choices=sorted(FACES), default="raspberry-pi-4", help="which board it looks like")
    parser.add_argument("--bare", action="store_true", help="without engines and numpy, as a board comes")
    parser.add_argument("--port", type=int, help="of its sshd, on loopback (default: a free one)")
    wanted = parser.parse_args()
    try:
        root = get_root()
        if wanted.action == "make":
            print(root.folder)
            return 0
        with standing(root, FACES[wanted.face], name=wanted.face, engines=not wanted.bare, port=wanted.port) as board:
            signal.signal(signal.SIGTERM, _leave)  # `kill` and timeout(1) end it like Ctrl+C
            print(f"ssh -F {board.config} {board.name}", flush=True)
            signal.pause()
    except CannotStand as why:
        print(f"no board here: {why}", file=sys.stderr)
        return 7
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
