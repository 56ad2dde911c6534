"""Tests of featx.data.sources."""
