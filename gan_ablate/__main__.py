"""``python -m gan_ablate`` is ``gan-ablate``."""

from gan_ablate.cli import main

main()
