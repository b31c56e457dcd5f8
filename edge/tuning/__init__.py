"""Find the fastest way to run a model on a machine: engine, threads, settings and precision, with a passed proof."""
