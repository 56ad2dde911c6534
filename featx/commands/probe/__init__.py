"""`featx probe`: how good features are, side by side, as a table, as JSON and as a figure."""
