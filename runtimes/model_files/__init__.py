"""Model files read without their engine: format detection, and bounded readers of headers."""
