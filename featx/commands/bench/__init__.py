"""`featx bench`: this machine, measured by several contenders that take turns."""
