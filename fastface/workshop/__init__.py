"""What a lab does with scans and galleries of its own: registration, statistics, affect models.

Needs ``pip install 'fastface[workshop]'`` for most of it; nothing that renders does.
"""
