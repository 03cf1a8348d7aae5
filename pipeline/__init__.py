"""How work moves: plan, batch, run one shard, commit, resume."""
