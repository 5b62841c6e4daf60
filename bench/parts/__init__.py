"""The workloads, one a file. Each has NAME, ABOUT, and `run(stage)`, which adds its figures to the stage's."""
