"""What releases cost: prices, a ledger of what every attempt of a job used, estimates, a budget that ends a release."""
