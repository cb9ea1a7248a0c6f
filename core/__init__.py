"""The attribution core: schema, money, context, journal, join, decide, settle, read.

Data flows one way: adapter -> recorder -> spool -> settle -> ledger -> reader. Nothing here
imports a framework or opens a socket.
"""
