"""What `model.fit` needs around it: strategy, train step, schedules, optimizer, callbacks, checkpoints."""
