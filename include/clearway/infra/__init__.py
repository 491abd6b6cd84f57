"""Side effects behind Protocols: storage, release store, registry, jobs, endpoint, clock, environment."""
