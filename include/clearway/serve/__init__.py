"""The model server: its own process, answering from its last good local copy whatever else is down."""
