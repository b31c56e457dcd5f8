"""Check what has only been simulated here on the hardware itself, and write a report to send in.

python -m tests.hardware coral                     on the machine with the stick
python -m tests.hardware pi --on pi@raspberrypi.local
python -m tests.hardware jetson --on nano@jetson.local --device jetson-nano
python -m tests.hardware phone --on phone          `phone` being a Host of ~/.ssh/config with Port 8022
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.hardware.checks import KINDS
from tests.hardware.runner import FAILED, ROOT, outcomes, report


def main(words: list[str] | None = None) -> int:
    """Run the checks of a kind. Returns 0 if none failed, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.hardware", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=sorted(KINDS), help="the hardware")
    parser.add_argument("--on", metavar="HOST", help="the board, as ssh knows it")
    parser.add_argument("--device", default="jetson-orin-nano", metavar="ID", help="the Jetson's profile")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the report (default: hardware-KIND)")
    parser.add_argument("--list", action="store_true", help="print the commands and exit")
    args = parser.parse_args(words)
    kind = KINDS[args.kind]
    if kind.on_board and not args.on and not args.list:
        parser.error(f"{kind.title} is reached over ssh: add --on HOST")
    for note in kind.notes:
        print(note, file=sys.stderr)
    if args.list:
        for check in kind.checks:
            print(f"{check.name}\n    edge {' '.join(check.words)}")
        return 0
    folder = args.out or Path(f"hardware-{args.kind}")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="edge-hardware-") as scratch:
        places = {
            "host": args.on or "",
            "device": args.device,
            "out": scratch,
            "artifacts": str(ROOT / "tests" / "compatibility" / "artifacts"),
        }
        found = []
        for one in outcomes(kind, places):
            print(f"{one.outcome:8} {one.name}{f': {one.reason}' if one.reason else ''}", flush=True)
            found.append(one)
    text, document = report(args.kind, kind, found, [args.on] if args.on else [])
    (folder / "report.md").write_text(text, encoding="utf-8")
    (folder / "report.json").write_text(document, encoding="utf-8")
    print(f"send in {folder}/report.md and {folder}/report.json; names of machines and users are replaced")
    return int(any(one.outcome == FAILED for one in found))


if __name__ == "__main__":
    sys.exit(main())
