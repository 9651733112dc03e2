"""The fault matrix, lived through: `python -m tests.tools.chaos`, or `make chaos`.

A simulated exchange issues trades with known ids, the loader runs as a process of its own, something goes wrong, and an
independent reader compares the topic with what the exchange issued. `trial` is one line of the table, the modules of
rows say what goes wrong.
"""
