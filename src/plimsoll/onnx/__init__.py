"""ONNX files, untrusted ones included.

load        read, check and confine a file; infer shapes
normal_form one form of every network, however its file was written; proof that both compute the same
structure   order, functions, constants, inputs and names, changed without computing anything
folding     compute what doesn't depend on the inputs; take out what does nothing
padding     `auto_pad` and output shapes as numbers
opset       raise the opset
graph       `Graph`: a network with its edges indexed; load, write and expose values
signature   inputs and outputs, stored beside files of formats that lack them
form        which number format a file computes in, read from its headers
check       compare a converted network with its ONNX original
inspection  operators, parameters, arithmetic: `plimsoll inspect`
writer      write a network operator by operator, for the importers
"""
