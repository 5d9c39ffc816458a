"""What must last: artifacts, records, the queue. Knows the contract only."""
