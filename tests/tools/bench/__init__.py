"""The benchmark: `make bench`. The exchange, the broker and every contender are processes of their own.

`measures` says what is measured, `arena` how one run goes, `contenders` who runs, `results` makes the table.
"""
