"""The ledger: the record of truth of what the DAQ announced, where it is, and what is missing."""
