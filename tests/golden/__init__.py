"""Golden runs: what whole runs did, as digests, so that a change of structure can be held to equal bits.

python -m tests.golden --check     plays every run again and names the first difference of each
python -m tests.golden --record    writes down what they do now; say in the commit which difference is meant, and why
"""
