"""Will a model run on a device? Node by node, from the file alone: no engine, no compiler, no device."""
