"""``python -m meltbench``."""

from meltbench.cli import main

main()
