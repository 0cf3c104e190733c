"""`python -m pharos`: the same as `pharos`."""

from pharos.cli import main

main()
