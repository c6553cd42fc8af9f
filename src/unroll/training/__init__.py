"""The training loop, its optimizers and schedules, its checkpoints."""
