"""The `check` command: runs the steps of a start against the real services and reports what to fix."""
