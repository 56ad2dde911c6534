"""Tests of `featx.features`."""
