"""A language model behind OpenAI's HTTP interface, with a page to chat on.

problems   errors in OpenAI's shape
asking     request bodies, read and checked
engine     the session, its slots, the queue before them, and what happens when it dies
answering  one answer while it is made: stop texts, counts
shapes     what is sent back, in OpenAI's shapes
endpoints  the HTTP application: routes
guard      what stands before every route: hosts, origins, keys, sizes, headers
meters     counts for Prometheus, and the access log
access     addresses and keys
server     the process: socket, signals, start and end
"""
