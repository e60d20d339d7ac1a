"""Access to the machine: files, caches, processes, cores, GPUs, and separately installed tools.

- `files`: read within a limit, replaced in one step, hashed; `cache`: the user's cache, and the builds in it
- `subprocesses`: jobs and commands in supervised processes
- `host`: processor, memory and precisions; `gpu`: CUDA devices
- `toolchains`: converters in environments of their own; `npm`: pinned files from npm packages
- `native_output`: what native libraries print, apart from what the program does
- `flatbuffer`: untrusted FlatBuffers
"""
