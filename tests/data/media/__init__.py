"""Tests of featx.data.media."""
