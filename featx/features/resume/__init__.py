"""Resume: rows that are finished are never computed again, and a file appears when it is complete.

What is on disk, for the feature file `OUTPUT/train_features.h5`:

    OUTPUT/train_features.h5                         the published file
    OUTPUT/train_features/00000.h5, ...              its shards, with `rows_per_file`
    OUTPUT/.featx/train_features/<run>/              the folder of one run:
        part-<first row>-<sha256>.h5                 a part: some finished rows
        skipped-<process>.jsonl                      rows that this run leaves out, and why
        shard-00000.h5, ...                          merged shards; a file that is not cut has one

A run does the following, in this order. All files are written under another name, synced and
renamed, so that a kill leaves each of them whole or absent.

1. `plan`: rank 0 reads the published file, its shards, and the folders of all earlier runs. A row
   is finished if one of these has it with the same content hash and the same settings. Rank 0
   refuses what would mix settings or lose rows; then it makes a folder for this run, and tells the
   other ranks where finished rows are. Rows of other feature files are copied to parts first,
   because those files may be replaced before this one is published.
   After a kill: nothing has changed.
2. `parts`: each rank writes the rows that it has made to parts.
   After a kill: the rerun finds the parts by content, and makes the rows in flight again.
3. `publish.merge_share`: when all ranks are done, each of them merges its share of the shards into
   the run's folder, and removes the parts of each shard as soon as that shard is on disk.
   After a kill: the rerun finds rows in merged shards and in the parts that are left. It takes a
   merged shard as it is, if it has the right rows.
4. `publish.publish`: rank 0 alone checks that no row is missing or lost. If shards are replaced
   that the published file is over, it removes that file. It moves the merged shards into place,
   writes the file over them, and renames it into place.
   After a kill: the old file is there, or none, or the new one. The rerun finds rows in old and in
   new shards, and goes on from there.
5. It removes shards that are not needed any more, and the folders of all runs.
   After a kill: the file is complete, and the rerun only removes the rest.

Rows of the published file, or of parts, whose video is gone are lost: a run refuses that without
`overwrite`. The consent is not kept: after a kill, the rerun needs `overwrite` again.
"""

STAGING_FOLDER = ".featx"
"""The folder in OUTPUT for all that a run keeps on disk beside its files."""
