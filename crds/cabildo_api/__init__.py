"""The cabildo.dev API: the kinds, their vocabulary and their wire formats.

Here: what every other part may import (pydantic models, names, reasons, exit codes) and the
generators of the CRD and of its reference. Never here: a Kubernetes client, an operator's
decision, a tensor. Nothing is imported by this module itself, so that a program which needs only
`cabildo_api.exit_codes` pays for nothing else.
"""
