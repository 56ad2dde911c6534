"""Tests of `featx.backbones`."""
