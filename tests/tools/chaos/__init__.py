"""The fault matrix: `python -m tests.tools.chaos`, or `make chaos`.

A simulated exchange issues trades with known ids, the loader runs as a process, something goes wrong, and an
independent consumer compares the topic with what the exchange issued. `trial` is one line of the table; the `*_rows`
modules say what goes wrong.
"""
