"""Tests of what a rerun takes over, and of how a file is published."""
