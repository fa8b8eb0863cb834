"""``python -m fastface`` is the ``fastface`` command."""

from fastface.cli import main

if __name__ == "__main__":
    main()
