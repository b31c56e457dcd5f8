"""One file per engine; the file's stem is the engine's id, its pip extra and its CLI value."""
