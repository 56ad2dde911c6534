"""After the job: feature files as batches, and which of them a model takes.

It imports `features` and the files at the root.
"""
