"""The frozen CNN: which there are, their weights, what they take, and how they run fast.

It imports only `errors`: it knows no data set, no feature file and no Lightning.
"""
