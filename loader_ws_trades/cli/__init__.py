"""What a user types: click commands and flags; errors become exit codes."""
