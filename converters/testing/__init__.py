"""The contract suite of converters, for built-in converters and for those of extensions."""
