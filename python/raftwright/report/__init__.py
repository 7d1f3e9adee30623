"""What an operator asks of a ledger: tonight at a glance, the story of an image, the audit, the night report.

Modules are imported one by one, by whoever needs them: `status` and `image` answer before most of them would
be loaded.
"""
