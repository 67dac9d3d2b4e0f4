"""``python -m gan_ablate`` is ``gan-ablate``."""

from gan_ablate.cli.app import main

main()
