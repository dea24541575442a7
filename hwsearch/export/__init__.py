"""From a subnet to a bundle that a program can load: export, parity gate, manifest, loading.

`hwsearch.export.load` and what it imports need neither torch nor segment_anything.
"""
