"""What can go wrong at the simulated exchange, and when it does."""
