"""Self-contained scripts for Python 3.6 and later, which run before anything else is on the board."""
