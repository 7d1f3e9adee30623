"""Migrations of the ledger, for Alembic: each leads from one version of the tables to the next."""
