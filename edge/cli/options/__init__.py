"""Options shared by several commands, one file per concern. `--help` must not import anything heavy."""
