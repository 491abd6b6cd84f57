"""One thin operator per stage: context → Inputs, run the verb, hand a reference on, outcome → task state."""
