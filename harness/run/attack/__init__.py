"""Attacks on one victim: what is right. `epsbench.harness.run.speed` makes it fast and changes no verdict."""
