"""What `featx --help` lists: a file a command, or a folder where one file is not enough.

Commands may import everything but `cli`, which finds them by name.
"""
