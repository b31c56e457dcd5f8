"""One file per step from one format to another, and the proof that the result equals its source."""
