"""ReFrame's settings for one machine without a scheduler, with mpirun and environment modules (4 or later)."""

site_configuration = {
    "systems": [
        {
            "name": "one-machine",
            "descr": "this machine",
            "hostnames": [".*"],
            "modules_system": "tmod4",
            "partitions": [
                {
                    "name": "here",
                    "scheduler": "local",
                    "launcher": "mpirun",
                    "environs": ["builtin"],
                    "max_jobs": 1,
                    # A job's shell knows no modules yet; by default where Debian has them.
                    "prepare_cmds": ['. "${MODULESHOME:-/usr/share/modules}/init/bash"'],
                }
            ],
        }
    ]
}
