"""Runs inside an environment: `python child.py JOB.py` answers one job, JSON on stdin, with JSON on stdout.

It knows nothing of this project and of any library. What the job prints goes to stderr.
"""

import json
import os
import runpy
import sys
import traceback


def main() -> None:
    """Answer {"answer": …}, or {"error": text, "kind": class name} for what the job raised."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        answer = {"answer": runpy.run_path(sys.argv[1])["run"](json.load(sys.stdin))}
    except (Exception, SystemExit) as error:  # onnx2tf leaves with sys.exit when it fails
        traceback.print_exc()
        answer = {"error": str(error) or type(error).__name__, "kind": type(error).__name__}
    answers.write(json.dumps(answer))
    answers.flush()


if __name__ == "__main__":
    main()
