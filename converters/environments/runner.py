"""Run a job inside an environment: `python runner.py JOB.py` reads it as JSON on stdin and answers on stdout.

It imports nothing from this project, and no library. Output of the job goes to stderr.
"""

import json
import os
import runpy
import sys
import traceback


def main() -> None:
    """Print {"answer": …}, or {"error": text, "kind": class name} if the job raised an exception."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        answer = {"answer": runpy.run_path(sys.argv[1])["run"](json.load(sys.stdin))}
    except (Exception, SystemExit) as error:  # onnx2tf calls sys.exit when it fails
        traceback.print_exc()
        answer = {"error": str(error) or type(error).__name__, "kind": type(error).__name__}
    answers.write(json.dumps(answer))
    answers.flush()


if __name__ == "__main__":
    main()
