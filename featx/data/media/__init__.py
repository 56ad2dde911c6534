"""One video: how a clip is opened, decoded, sampled and turned into pixels."""
