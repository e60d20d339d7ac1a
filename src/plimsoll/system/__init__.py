"""The machine below: files, caches, processes, cores and GPUs, and what is fetched or installed apart.

- `files`: read within a limit, replaced in one step, hashed; `cache`: the user's cache, and the builds in it
- `subprocesses`: jobs and commands in processes of their own, watched
- `host`: processor, memory and precisions; `gpu`: CUDA devices
- `toolchains`: converters in environments of their own; `npm`: pinned files from npm packages
- `flatbuffer`: FlatBuffers from strangers
"""
