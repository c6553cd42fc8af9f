"""``python -m unroll`` is the command ``unroll``."""

from unroll.app import main

main()
