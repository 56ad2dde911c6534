"""`featx inspect`: what a feature file holds, as a table, as JSON and as figures."""
