"""The view of embeddings: their cosines to references, or their first numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge.tasks import TaskView
from runtimes.artifact.json_fields import JsonObject, to_json
from runtimes.tasks.embedding import Embedding

_SHOWN = 4  # numbers


class EmbeddingView(TaskView[Embedding, Any]):
    """Shows how similar inputs are."""

    id = "embedding"

    def describe(self, result: Embedding) -> str:
        """Format one line with size, length and first numbers, then one line per reference: cosine and name."""
        numbers = ", ".join(f"{one:.4f}" for one in result.vector[:_SHOWN])
        more = ", …" if result.vector.size > _SHOWN else ""
        head = f"  {result.vector.size} numbers of length {np.linalg.norm(result.vector):.4g}: {numbers}{more}"
        return "\n".join([head, *(f"  {one.cosine:7.4f}  {one.reference}" for one in result.similarities)])

    def row(self, result: Embedding) -> JsonObject:
        """Return "similarities", the cosines to references."""
        return {"similarities": [to_json(one) for one in result.similarities]}
