"""The tools of the tests, and what tests them."""
