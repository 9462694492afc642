"""The kernels in NumPy: the same bits as the compiled ones, where those cannot be built or run."""
