"""What differs between kinds of models, asked in one place per stage; nobody else looks at `model.kind`."""
