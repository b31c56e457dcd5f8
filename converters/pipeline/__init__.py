"""The conversion pipeline: run the source, convert, verify, write the artifact."""
