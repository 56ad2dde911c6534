"""The frozen CNN: which there are, their weights, what they take, and how they run fast.

It imports only `errors` and `durable`: it knows no data set, no feature file and no Lightning.
"""
