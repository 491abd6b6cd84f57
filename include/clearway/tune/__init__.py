"""Search hyper-parameters with Optuna, when the product asks for it."""
