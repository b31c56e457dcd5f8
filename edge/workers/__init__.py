"""The parent side of worker processes: start them, send jobs, stop them, and explain failures."""
