"""Open an artifact and run it. Copied to boards: Python 3.8, the standard library, numpy and one engine."""
