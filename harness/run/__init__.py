"""Doing it: data, training, victims, the attack engine and the runner."""

from epsbench.harness.waiting import wait_passively

wait_passively()  # before anything here imports torch
