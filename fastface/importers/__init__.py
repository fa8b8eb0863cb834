"""Head models that a user brings: each importer turns one published format into a ``HeadModel``."""
