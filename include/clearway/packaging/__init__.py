"""What travels with a model: fitted preprocessing state, weights, schema, signed manifest; and how it is run."""
