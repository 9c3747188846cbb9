"""Peers on several hosts of one machine: network namespaces, and engines that place them on virtual nodes."""
