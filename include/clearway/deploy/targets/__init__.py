"""The same image elsewhere: who serves which share, written down for ECS, Kubernetes and KServe.

Pure: (what stands, settings) → plain dicts. `clearway render` writes the files; nothing here calls anybody.
"""
