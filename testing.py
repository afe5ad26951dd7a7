"""Checks for the tests of a plugin: ``epsbench.testing.check_attack(MyAttack())``."""

from epsbench.harness.testing import check_attack, check_defense, check_model

__all__ = ["check_attack", "check_defense", "check_model"]
