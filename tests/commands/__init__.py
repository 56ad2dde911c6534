"""Tests of `featx.commands`."""
