"""ONNX files, which may come from strangers.

load        read, check and confine a file; raise its opset; infer shapes
graph       `Graph`: a network with its edges indexed; load, sort, write and expose values
signature   what a network takes and gives, kept beside files that don't say
form        which number format a file computes in, read from its headers
check       compare a converted network with its ONNX original
inspection  operators, parameters, arithmetic: `plimsoll inspect`
writer      write a network operator by operator, for the importers
"""
