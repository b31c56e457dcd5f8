"""Stand-ins for engines that give wrong answers: they wrap the real one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

# LiteRT.js as in LiteRT's issue 8065: from some inference on, the answers are garbage.
GARBAGE = """
export * from "./real.js";
import * as real from "./real.js";
export async function loadAndCompile(...given) {
  const model = await real.loadAndCompile(...given);
  const run = model.run.bind(model);
  let runs = 0;
  model.run = async (inputs) => {
    const outputs = await run(inputs);
    runs += 1;
    return runs < FIRST ? outputs : outputs.map((tensor) => {
      const data = tensor.toTypedArray().slice().reverse();
      return { deleted: false, delete: () => tensor.delete(), data: async () => data };
    });
  };
  return model;
}
"""


def garbage_from(artifact: Path, inference: int, changed: Callable[..., Path]) -> Path:
    core = (artifact / "engine/litert_js/core.js").read_bytes()
    stand_in = GARBAGE.replace("FIRST", str(inference)).encode()
    files = {"engine/litert_js/core.js": stand_in, "engine/litert_js/real.js": core}
    return changed(artifact, files, is_signed=True)
