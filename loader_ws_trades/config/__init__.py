"""What a user sets: settings from flags, variables and env files, checked together."""
