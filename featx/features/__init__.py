"""Vectors out: the feature file, what is wrong with one, and its way to disk by parts.

It imports only the files at the root: it knows no CNN, no frames and no Lightning.
"""
