"""The job: videos through the frozen CNN into feature files, under a Lightning Trainer.

It joins `data`, `backbones` and `features`, which know nothing of each other.
"""
