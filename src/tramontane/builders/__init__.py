"""Turn a directory of source code into an artifact that a runtime can start."""
