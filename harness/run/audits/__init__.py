"""Audits: checks that a number means what it says. Each remark is a `epsbench.harness.findings.Finding`."""
