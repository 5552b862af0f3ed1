"""What the tasks share: a model, its weights and optimizers, who learns it, and the race between them."""
