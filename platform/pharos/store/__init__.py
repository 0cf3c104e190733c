"""Object stores: a sweep's state on s3:// or gs://, and the local mirror through which it is read and written.

Everything above works on paths. A path that lies in a mirror has a place at a store; one that does not is left alone,
so that the functions here may be called with any path. Knows pyarrow, and nothing of sweeps.
"""
