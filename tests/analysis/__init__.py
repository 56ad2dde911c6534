"""Tests of `featx.analysis`."""
