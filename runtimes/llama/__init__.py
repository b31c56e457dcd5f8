"""llama.cpp through the C functions that llama-cpp-python binds: what its engine in `runtimes/engines/` is made of.

library     the binding, loaded once; what llama.cpp logs; the flag that stops a computation
memory      how much a model will need, before it is loaded
sampling    the chains that draw the next token
reuse       what of a sequence has been read already, also behind a gap
requests    one continuation: what is asked for, and what has come of it
scheduler   the one thread that computes, for all slots together
session     the TextSession
rpc         llama.cpp's workers on other machines
"""
