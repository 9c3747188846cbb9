"""Peers on several hosts of one machine: network namespaces with addresses, names and a switch of their own."""
