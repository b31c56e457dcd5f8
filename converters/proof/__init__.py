"""Proof that a result equals its source: what the parts of an output are, and how each is compared with the source."""
