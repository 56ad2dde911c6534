"""Tests of `featx.data`."""
