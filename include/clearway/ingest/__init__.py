"""Land one window of batches: read, check, record in the ledger, publish."""
