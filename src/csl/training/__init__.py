"""Training, in the order in which it runs: recipe, data, optimizer, loop, state, summary."""
