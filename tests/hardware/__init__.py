"""Everything that has only been simulated here, on the hardware itself: `python -m tests.hardware coral`."""
