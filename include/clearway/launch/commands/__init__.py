"""Sub-commands of `python -m clearway` that need a running stack; each module has `add_arguments` and `run`."""
