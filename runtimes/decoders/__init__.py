"""Output layouts of detectors and other models that have several, in numpy; `runtimes/tasks/` lists them."""
