"""Doing it: data, training, victims, the attack engine and the runner."""
