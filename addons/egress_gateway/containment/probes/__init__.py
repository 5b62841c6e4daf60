"""The things that are tried, each with the verdict over it: one file for each way out."""
