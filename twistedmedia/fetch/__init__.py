"""Outgoing HTTP: fetches URLs within a policy, without blocking anything else."""
