"""ONNX files, untrusted ones included.

load        read, check and confine a file; raise its opset; infer shapes
graph       `Graph`: a network with its edges indexed; load, sort, write and expose values
signature   inputs and outputs, stored beside files of formats that lack them
form        which number format a file computes in, read from its headers
check       compare a converted network with its ONNX original
inspection  operators, parameters, arithmetic: `plimsoll inspect`
writer      write a network operator by operator, for the importers
"""
