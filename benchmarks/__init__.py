"""What meltbench claims of its own speed and exactness, each as a figure against a limit taken in the same run.

``python -m benchmarks`` runs all of them; README.md says how to add one, docs/performance.md what each line means.
"""
