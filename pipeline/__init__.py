"""The engine of a job: plan shards, pack batches, run and commit each shard, resume."""
