"""What `check` adds to the contract: deep checks, and the formats of findings."""
