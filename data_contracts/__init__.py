"""What passes between stages: configuration, table schemas and manifests. No I/O."""
