"""Run a command while other processes keep the cores busy: no test may depend on the load of the machine.

python tests/tools/busy.py 4 -- python -m pytest tests/runtimes

The burners run at the command's own priority, and end with it. Exits with the command's status.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

# It ends by itself when this process is gone, however that went.
_BURN = """
import os
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""


@contextmanager
def burning(count: int) -> Iterator[None]:
    """So many processes burn a core each for as long as the block runs."""
    with ExitStack() as stack:
        for _ in range(count):
            burner = stack.enter_context(subprocess.Popen([sys.executable, "-S", "-c", _BURN]))
            stack.callback(burner.kill)
        yield


def main(words: list[str]) -> int:
    """The command line; see the module's docstring."""
    number, separator, *command = words if len(words) > 2 else ["", ""]
    if not number.isdigit() or separator != "--":
        print(__doc__, file=sys.stderr)
        return 2
    try:
        with burning(int(number)):
            return subprocess.run(command, check=False).returncode
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
