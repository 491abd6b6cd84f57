"""What the pieces agree on: references, verdicts, manifests, the release document, errors. Standard library only."""
