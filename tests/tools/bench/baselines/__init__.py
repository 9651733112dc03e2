"""What people write in place of the loader, each in the way its library's documentation shows, and pipelined.

Each takes the trades of one stream to a topic and ends after `--count` of them. All decode with a JSON decoder into a
dictionary, make floats of price and quantity (the loader keeps the exchange's digits), write the same six fields,
wait for `acks=all`, and do nothing else: no gaps, no restart, no reconnect, no telemetry.
"""
