"""Open an artifact and run it. Travels to boards: Python 3.8, the standard library, numpy and one engine."""
