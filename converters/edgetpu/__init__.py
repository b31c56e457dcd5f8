"""Google's Edge TPU: the contents of files from its compiler, read without it, and the rules of what it supports."""
