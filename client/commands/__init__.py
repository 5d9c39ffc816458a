"""The commands of `sparring`, a file for each family. What is heavy is imported inside a command, so that `--help` is quick."""
