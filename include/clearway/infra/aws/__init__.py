"""What the rest of infra is on AWS: the same Protocols, over boto3."""
