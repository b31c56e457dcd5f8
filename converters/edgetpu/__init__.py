"""Google's Edge TPU: what a file made by its compiler holds, read from the file alone."""
