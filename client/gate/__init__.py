"""The gate: a policy read, an evaluation run, each rule judged."""
