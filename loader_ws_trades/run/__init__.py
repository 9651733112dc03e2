"""One run: its sources and sinks, its start, its end and its exit code."""
