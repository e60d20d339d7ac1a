"""Score pictures in bulk: from folders, lists, archives and tables, on this machine or many, into a table of Parquet
parts that a stop or a crash never harms.

run         `scan`: what the command does; `ScanResult`
models      which models answer, and what their answers depend on
storage     folders here and in object stores
plan        `Plan`: the sources as shards, frozen in the table before any work; `Shard`: the unit of work
entries     the pictures of a shard
facts       what a picture's file says besides the answer: hashes and size
worker      the process that answers the pictures of shards
shard_run   `ShardRunner`: a worker watched over; what crashes it becomes a row; finished shards become parts
table       `Table`: manifest, schema, parts
engine      `Engine`: where shards run; `LocalEngine`: on this machine
earlier     what another table has scored already
decisions   what people decided on pictures of a table, joined with their scores
threshold   what bands of scores hold and cost, and which bands keep given limits
"""

from plimsoll.scan.run import ScanResult, scan

__all__ = ["ScanResult", "scan"]
