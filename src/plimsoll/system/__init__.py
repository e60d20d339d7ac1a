"""The machine underneath: its files, caches, processes, cores and GPUs, and the toolchains of converters."""
