"""`featx verify`: rows of a feature file, made again from the inputs and compared."""
