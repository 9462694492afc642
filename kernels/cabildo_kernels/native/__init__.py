"""Compiled kernels, where they could be built; `cabildo_kernels.dispatch` imports them."""
