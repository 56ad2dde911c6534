"""Tests of `featx.extraction`."""
