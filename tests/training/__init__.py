"""Tests of `featx.training`."""
