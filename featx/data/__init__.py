"""Frames in: which videos a data set holds, and how one is read, for each kind of source.

It imports only the files at the root: it knows no CNN, no HDF5 and no Lightning.
"""
