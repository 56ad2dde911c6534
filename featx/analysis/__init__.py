"""What features are worth: pooled to a vector a video, probed, and compared with each other.

It imports `features` and the files at the root, and knows neither Lightning nor HDF5.
"""
