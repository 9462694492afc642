"""Federated rounds: a server's step in the direction of any rule's aggregate. Start at `rounds`."""
