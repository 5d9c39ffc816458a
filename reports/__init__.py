"""Pure functions from a Report to pages and files. Knows the contract only."""
