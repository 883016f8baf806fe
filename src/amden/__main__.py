"""`python -m amden` is `amden`."""

from amden.cli import main

if __name__ == "__main__":
    main()
